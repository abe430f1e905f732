// The strip of evidence alarms, all that are open, as the board's stream tells it. What somebody is writing stays.
"use strict";

function witness(box, html) {
  const made = document.createElement("template");
  made.innerHTML = html; // from our own templates, which escape whatever nodes and people say
  const marks = (cards) => [...cards.children].map((card) => `${card.id} ${card.dataset.changed}`).join();
  if (marks(box) === marks(made.content)) return;
  const typed = new Map([...box.querySelectorAll("[name=comment]")].map((field) => [field.id, field.value]));
  const focused = box.contains(document.activeElement) ? document.activeElement.id : "";
  box.replaceChildren(...made.content.children);
  for (const field of box.querySelectorAll("[name=comment]")) field.value = typed.get(field.id) ?? "";
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}
