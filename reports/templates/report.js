"use strict";
const root = document.documentElement;
const data = JSON.parse(document.getElementById("data").textContent);

// The picker: the page holds every dialect's and measure's numbers; the style sheet shows the chosen ones.
for (const select of document.querySelectorAll(".picker select")) {
  const choose = () => { root.dataset[select.name] = select.value; };
  select.addEventListener("change", choose);
  choose(); // a reloaded page keeps the reader's choice
}

// Sorting: by data-value as a number where the cell (or its visible part) has one, else by text. Empty and nan last.
function key(row, column) {
  const cell = row.cells[column];
  const shown = cell.querySelector(`[data-for-dialect="${root.dataset.dialect}"]`) ?? cell;
  const value = shown.dataset.value;
  return value === undefined ? cell.textContent.trim() : value === "nan" || value === "" ? null : Number(value);
}
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
}
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = head.closest("table").tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, head.cellIndex), row]);
    rows.sort(([a], [b]) => compare(a, b, descending ? -1 : 1));
    body.append(...rows.map(([, row]) => row));
  });
}

// The difference of two experiments' mean matrices.
const difference = document.querySelector(".difference");
function element(tag, text, attributes = {}) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.textContent = text;
  return made;
}
function showDifference() {
  const [a, b] = [difference.elements.a.value, difference.elements.b.value].map((id) => data.matrices[id].mean);
  const place = document.getElementById("difference");
  if (a.length !== b.length) {
    place.replaceChildren(element("p", "These two have a different number of experiences."));
    return;
  }
  const points = a.map((row, t) => row.map((x, j) => (x === null || b[t][j] === null ? null : x - b[t][j])));
  const limit = Math.max(5, Math.ceil(Math.max(...points.flat().map((x) => Math.abs(x ?? 0)))));
  document.getElementById("limit").textContent = limit;
  const table = element("table", "", { className: a.length > 10 ? "matrix dense" : "matrix" });
  const head = table.createTHead().insertRow();
  head.append(element("td", ""), ...a.map((_, j) => element("th", j + 1, { scope: "col" })));
  const body = table.createTBody();
  points.forEach((row, t) => {
    const line = body.insertRow();
    line.append(element("th", t + 1, { scope: "row" }));
    row.forEach((x, j) => {
      if (x === null) return line.append(element("td", ""));
      const title = `after ${t + 1}, on ${j + 1}: ${x.toFixed(1).replace("-", "−")} points`;
      line.append(element("td", String(Math.round(x) || 0).replace("-", "−"), { className: `d${Math.round(50 + (50 * x) / limit)}`, title }));
    });
  });
  place.replaceChildren(table);
}
if (difference) {
  difference.addEventListener("change", showDifference);
  showDifference();
}

// Paper cannot unfold.
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
