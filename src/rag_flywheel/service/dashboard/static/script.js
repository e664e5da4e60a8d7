// Adds to pages that work without it: the switch of colours, keys in the review queue, and what comes later.
"use strict";

const root = document.documentElement;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

const theme = document.getElementById("theme");
if (theme) {
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  theme.hidden = false;
  name();
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    document.cookie = `fw_theme=${root.dataset.theme};path=/;max-age=31536000;samesite=strict`;
    name();
  });
}

const items = () => [...document.querySelectorAll(".item")];
const current = () => document.activeElement.closest(".item") || items()[0];

function go(by) {
  const all = items(), at = all.indexOf(document.activeElement.closest(".item"));
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  if (next) next.focus();
}

document.addEventListener("keydown", (event) => {
  const writes = event.target.closest("input, textarea, select");
  if (writes || event.ctrlKey || event.metaKey || event.altKey || !items().length && event.key !== "u") return;
  const button = (within) => within && within.querySelector(`[data-key="${event.key}"]`);
  if (event.key === "j" || event.key === "k") go(event.key === "j" ? 1 : -1);
  else if (event.key === "a" || event.key === "r") button(current())?.click();
  else if (event.key === "u") button(document)?.click();
});

// what is still being computed: the page is asked for again, unless somebody writes in it
async function again() {
  const waits = document.querySelector("[data-again]");
  if (!waits) return;
  await new Promise((done) => setTimeout(done, Number(waits.dataset.again)));
  if (document.activeElement.closest("input, textarea, select")) return again();
  const answer = await fetch(location.href, { credentials: "same-origin" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const inside = document.activeElement.closest("main") && document.activeElement.id;
  document.getElementById("main").replaceWith(fresh.getElementById("main"));
  if (inside) document.getElementById(inside)?.focus();
  return again();
}
again();
