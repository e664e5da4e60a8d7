/* rag-flywheel: thumbs under answers; see docs/how-to/run-the-service.md */
(() => {
  const doc = document, me = doc.currentScript, texts = {
    ask: "Was this helpful?", up: "Helpful", down: "Not helpful",
    thanks: "Thank you", undone: "Taken back", failed: "Not sent, please try again",
  }, pending = new Set();
  const key = me.dataset.key ? "?key=" + encodeURIComponent(me.dataset.key) : "";
  const url = (path) => new URL("browser/" + path + key, me.src);
  const post = async (path, body) => {
    const sent = await fetch(url(path), { method: "POST", body, credentials: "omit", keepalive: true });
    if (!sent.ok) throw sent.status;
  };
  function mount(el) {
    const say = { ...texts, ...me.dataset, ...el.dataset }, about = { token: say.thumbs };
    const path = say.passage ? "feedback" : "answer-feedback", buttons = {};
    if (say.passage) about.passage_id = say.passage;
    const live = doc.createElement("span");
    let now = null, stored = null, timer = 0, last = Promise.resolve(), copied = 0;
    const show = (text) => {
      for (const v in buttons) {
        buttons[v].ariaPressed = v === now;
        buttons[v].style.boxShadow = v === now ? "0 0 0 2px" : "";
      }
      live.textContent = text;
    };
    const flush = (leaving) => {
      clearTimeout(timer);
      pending.delete(flush);
      if (now === stored) return;
      const was = stored, is = (stored = now), body = JSON.stringify({ ...about, verdict: is || "retract" });
      if (leaving === 1 && navigator.sendBeacon(url(path), body)) return;
      last = last.then(() => post(path, body)).catch(() => {
        if (stored === is && now === is) { now = stored = was; show(say.failed); }
      });
    };
    const button = (verdict, label, sign) => {
      const b = buttons[verdict] = doc.createElement("button");
      b.type = "button";
      b.textContent = sign;
      b.ariaLabel = label;
      b.onclick = () => {
        now = now === verdict ? null : verdict;
        show(now ? say.thanks : say.undone);
        clearTimeout(timer);
        timer = setTimeout(flush, 800);
        pending.add(flush);
      };
      return b;
    };
    el.role = "group";
    el.ariaLabel = say.ask;
    live.role = "status";
    el.append(button("helpful", say.up, "👍"), " ", button("harmful", say.down, "👎"), " ", live);
    show("");
    (el.closest("[data-answer]") || el.parentNode).addEventListener("copy", (e) => {
      if (e.told) return;
      e.told = 1;
      if (!copied) post("signals", JSON.stringify({ ...about, kind: "copied" })).catch(() => {});
      copied = 1;
    });
  }
  const leave = () => pending.forEach((flush) => flush(1));
  addEventListener("pagehide", leave);
  doc.addEventListener("visibilitychange", () => doc.hidden && leave());
  const scan = () => doc.querySelectorAll("[data-thumbs]:not([role])").forEach(mount);
  new MutationObserver(scan).observe(doc, { childList: true, subtree: true });
  scan();
})();
