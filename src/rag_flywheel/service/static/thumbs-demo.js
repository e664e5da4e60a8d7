/* What an application's own page and server do together: ask, show the hits, and put a token under each. */
"use strict";
const form = document.querySelector("form"), answers = document.getElementById("answers");

function element(name, text, data = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  Object.assign(made.dataset, data);
  return made;
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const asked = await fetch("retrieve", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ query: form.query.value, k: 3, feedback_token: true }),
  });
  const answer = await asked.json();
  if (!asked.ok) return answers.replaceChildren(element("p", answer.detail));
  const whole = element("div", "", { answer: "" });
  for (const hit of answer.hits) {
    const shown = element("article", "", { answer: "" });
    shown.append(element("h2", hit.title || hit.passage_id), element("p", hit.text));
    shown.append(element("div", "", { thumbs: answer.feedback_token, passage: hit.passage_id }));
    whole.append(shown);
  }
  whole.append(element("div", "", { thumbs: answer.feedback_token, ask: "Was the whole answer helpful?" }));
  answers.replaceChildren(whole);
});
