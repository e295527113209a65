"use strict";
// Sliders: how much of the upper view is laid bare.
for (const box of document.querySelectorAll(".compare")) {
  const slider = box.querySelector("input");
  slider.addEventListener("input", () => box.style.setProperty("--at", slider.value + "%"));
}
// Tables: a click sorts, typing filters, a button saves what is shown.
const text = (cell) => cell.textContent.trim();
const number = (value) => (/^[<+\-]?[\d.]/.test(value) ? parseFloat(value.replace("<", "")) : NaN);
const shown = (table) => [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => [...row.cells].map(text));
function sort(table, column, header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [text(row.cells[column]), row]);
  rows.sort(([a], [b]) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return (isNaN(x) ? a.localeCompare(b) : x - y) * (up ? 1 : -1);
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}
const csv = (rows) => rows.map((row) => row.map((cell) => '"' + cell.replaceAll('"', '""') + '"').join(",")).join("\n");
const escapes = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}" };
const tex = (cell) => cell.replace(/[\\~^&%$#_{}]/g, (c) => escapes[c] || "\\" + c);
const latex = (rows) =>
  "\\begin{tabular}{" + "l".repeat(rows[0].length) + "}\n\\hline\n" +
  rows.map((row, i) => row.map(tex).join(" & ") + " \\\\" + (i ? "" : "\n\\hline")).join("\n") + "\n\\hline\n\\end{tabular}\n";
function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}
for (const table of document.querySelectorAll(".sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((header, column) => header.querySelector("button").addEventListener("click", () => sort(table, column, header)));
  const tools = document.querySelector('.tools[data-for="' + table.id + '"]');
  tools.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  for (const button of tools.querySelectorAll("button"))
    button.addEventListener("click", () => {
      const rows = [heads.map(text), ...shown(table)];
      save("lamella-" + table.id + "." + button.dataset.save, button.dataset.save === "csv" ? csv(rows) : latex(rows));
    });
}
