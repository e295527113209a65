"use strict";
// Sliders: how much of the upper view is laid bare. A view under two sliders is inlined once and shared.
for (const image of document.querySelectorAll("img[data-same]")) {
  image.src = image.closest("article").querySelector('img[data-view="' + image.dataset.same + '"]').src;
}
for (const box of document.querySelectorAll(".compare")) {
  const slider = box.querySelector("input");
  slider.addEventListener("input", () => box.style.setProperty("--at", slider.value + "%"));
}
// Tables: a click sorts, typing filters, a button saves what is shown, as it is shown.
const text = (cell) => (cell.dataset.text ?? cell.textContent).replaceAll("\u00a0", " ").trim();
const NUMBER = /^[<>]?[+-]?\d*\.?\d+(%|\s\*|\sto\s.*|\s\(.*\)|\s(s|min|h))?$/;
const UNITS = { min: 60, h: 3600 };
const number = (value) =>
  NUMBER.test(value) ? parseFloat(value.replace(/^[<>]/, "")) * (UNITS[value.split(" ")[1]] ?? 1) : NaN;
function sort(table, column, header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [text(row.cells[column]), row]);
  rows.sort(([a], [b]) => {
    if ((a === "-") !== (b === "-")) return a === "-" ? 1 : -1; // nothing comes last, either way
    const [x, y] = [number(a), number(b)];
    const order = isNaN(x) || isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
    return up ? order : -order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}
function read(table) {
  const badged = "badged" in table.dataset;
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  const head = [...table.tHead.rows[0].cells].map(text);
  const body = rows.map((row) => [...row.cells].map(text).concat(badged ? [row.dataset.badges] : []));
  return [head.concat(badged ? ["mark"] : []), ...body];
}
const quote = (cell) => (/[",\n]/.test(cell) ? '"' + cell.replaceAll('"', '""') + '"' : cell);
const csv = (rows) => rows.map((row) => row.map(quote).join(",")).join("\n") + "\n";
const ESCAPES = {
  "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
};
const tex = (cell) => cell.replace(/[\\~^&%$#_{}<>|]/g, (c) => ESCAPES[c] ?? "\\" + c);
const latex = (rows) =>
  "\\begin{tabular}{" + "l".repeat(rows[0].length) + "}\n\\hline\n" +
  rows.map((row, i) => row.map(tex).join(" & ") + " \\\\" + (i ? "" : "\n\\hline")).join("\n") +
  "\n\\hline\n\\end{tabular}\n";
function save(name, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
for (const table of document.querySelectorAll(".sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) =>
    header.querySelector("button").addEventListener("click", () => sort(table, column, header)));
  const tools = document.querySelector('.tools[data-for="' + table.id + '"]');
  tools.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
  for (const button of tools.querySelectorAll("button"))
    button.addEventListener("click", () => {
      const kind = button.dataset.save;
      save("lamella-" + table.id + "." + kind, (kind === "csv" ? csv : latex)(read(table)));
    });
}
for (const button of document.querySelectorAll("[data-select]"))
  button.addEventListener("click", () => {
    getSelection().selectAllChildren(button.closest(".tools").previousElementSibling);
    document.execCommand("copy");
  });
