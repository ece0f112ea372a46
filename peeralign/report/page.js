"use strict";

// Without this script everything is shown, one below the other; hence the controls start hidden.
for (const tabs of document.querySelectorAll("[data-tabs]")) {
  const panels = [...tabs.querySelectorAll("[data-tab]")];
  const buttons = [...tabs.querySelectorAll("button")];
  const show = (key) => {
    for (const panel of panels) panel.hidden = panel.dataset.tab !== key;
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.show === key));
    }
  };
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.show));
  if (buttons.length > 1) tabs.querySelector(".choices").hidden = false;
  if (buttons.length) show(buttons[buttons.length - 1].dataset.show);
}

const filters = document.getElementById("filters");
if (filters) {
  const cards = [...document.querySelectorAll(".card")];
  const field = (name) => document.getElementById("filter-" + name);
  const selects = [...filters.querySelectorAll("select")];
  const search = field("text");
  const texts = new Map(cards.map((card) => [
    card,
    [...card.querySelectorAll("[data-search]")].map((e) => e.textContent).join("\n").toLowerCase(),
  ]));

  // A card has one value of a filter ("data-round"), or a list of them ("data-authors").
  const has = (card, name, value) =>
    `${name}s` in card.dataset
      ? JSON.parse(card.dataset[`${name}s`]).includes(value)
      : card.dataset[name] === value;
  const apply = () => {
    const chosen = selects
      .filter((select) => select.value)
      .map((select) => [select.id.slice("filter-".length), select.value]);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const matches =
        chosen.every(([name, value]) => has(card, name, value)) &&
        words.every((word) => texts.get(card).includes(word));
      card.hidden = !matches;
      shown += matches;
    }
    document.getElementById("shown").textContent = `${shown} of ${cards.length} shown`;
    document.getElementById("nothing").hidden = shown > 0;
  };

  for (const select of selects) select.addEventListener("change", apply);
  search.addEventListener("input", apply);
  field("reset").addEventListener("click", () => {
    for (const select of selects) select.value = "";
    search.value = "";
    apply();
  });
  filters.hidden = false;
  apply();
}
