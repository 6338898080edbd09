/* The page's behaviour: theme, charts drawn as they come into view, token map, sortable tables, tooltips.
   Charts are plotly's; everything else here is the browser's own. */
"use strict";
async function unpack(id) {
  const node = document.getElementById(id), bytes = Uint8Array.from(atob(node.textContent), (c) => c.charCodeAt(0));
  node.remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
(async () => {
if (!("DecompressionStream" in window)) {
  document.querySelector("main").insertAdjacentHTML("afterbegin", '<p class="note">This browser is too old for the interactive figures.</p>');
  return;
}
const [data, plotly] = await Promise.all([unpack("data"), unpack("plotly")]);
const DATA = JSON.parse(data);
document.head.append(Object.assign(document.createElement("script"), { textContent: plotly }));
const root = document.documentElement;
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const escapeHtml = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

/* Theme: colours in chart data are names of CSS variables. */
const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const LONG = new Set(["x", "y", "z", "text", "customdata"]);
function themed(value, key) {
  if (typeof value === "string") {
    if (value === "diverging") return DATA.scales[root.dataset.theme];
    return value.startsWith("var(") ? css(value.slice(4, -1)) : value;
  }
  if (value === null || typeof value !== "object" || LONG.has(key)) return value;
  if (Array.isArray(value)) return value.map((item) => themed(item));
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, name)]));
}
const AXIS = { gridcolor: "var(--line)", zerolinecolor: "var(--muted)", linecolor: "var(--line)", tickcolor: "var(--line)", automargin: true };
function layout(own, size) {
  const merged = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 8, t: 8, b: 8 }, ...size,
    font: { family: "system-ui, sans-serif", size: 12, color: "var(--ink)" },
    hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--muted)", font: { color: "var(--ink)", size: 13 }, align: "left" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--soft)", activecolor: "var(--accent)" }, colorway: ["var(--s0)"], ...own,
  };
  for (const name of ["xaxis", "yaxis", ...Object.keys(own)]) if (/^[xy]axis/.test(name)) merged[name] = { ...AXIS, ...(own[name] || {}) };
  return themed(merged);
}
const CONFIG = { responsive: true, displaylogo: false, modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };

/* One source per chart: a function that gives its current traces and layout. */
const sources = new Map();
const drawn = new Set();
function draw(node) {
  const { data, layout: own } = sources.get(node.id)();
  drawn.add(node.id);
  return Plotly.react(node, themed(data), layout(own, {}), { ...CONFIG, displayModeBar: node.classList.contains("map") ? true : "hover" });
}
for (const [id, chart] of Object.entries(DATA.charts)) {
  const legend = chart.data.filter((trace) => trace.showlegend !== false && trace.name).length > 1;
  sources.set(id, () => ({ data: chart.data, layout: { showlegend: legend, ...chart.layout } }));
}

/* The token map. */
const SYMBOLS = ["circle", "triangle-up", "square", "diamond", "triangle-down", "cross", "x", "star"];
const GLYPHS = ["●", "▲", "■", "◆", "▼", "✚", "✖", "★"];
const MANY = 5000; // points that SVG still draws smoothly
const webgl = (() => { try { return !!document.createElement("canvas").getContext("webgl"); } catch { return false; } })();
const hidden = new Set(); // groups and levels switched off, in every map
const list = (place) => (place === null || place === undefined ? null : DATA.lists[place]);
const idOf = (ids, i) => (ids === null ? null : "from" in ids ? ids.from + i : list(ids.list)[i]);

function open(plan) {
  const points = [];
  for (const kind of ["text", "new"]) {
    const group = plan[kind], tokens = list(group.tokens), levels = list(group.levels), near = group.near;
    for (let i = 0; i < group.count; i++) {
      const level = levels ? levels[i] : null;
      points.push({
        x: group.x.from + group.x.step * group.x.at[i], y: group.y.from + group.y.step * group.y.at[i],
        token: tokens ? tokens[i] : "", id: idOf(group.ids, i), level,
        group: kind === "text" ? "text" : level === null ? "new" : `level ${level}`,
        near: near ? near.at[i].map((word, k) => [list(near.words)[word], near.cos[i][k] / 1000]) : [],
      });
    }
  }
  return points;
}
function describe(point, html) {
  const name = point.token || (point.id === null ? "text token" : `token ${point.id}`);
  const lines = [html ? `<b>${escapeHtml(name)}</b>` : name];
  lines.push([point.group, point.id === null || !point.token ? null : `id ${point.id}`].filter(Boolean).join(" · "));
  if (point.near.length) lines.push("nearest text: " + point.near.map(([word, cosine]) => `${html ? escapeHtml(word) : word} ${cosine.toFixed(2)}`).join(", "));
  return lines.join(html ? "<br>" : ", ");
}
const maps = new Map();
for (const [id, plan] of Object.entries(DATA.maps)) {
  const points = open(plan);
  const groups = [...new Set(points.map((point) => point.group))];
  const crowd = points.length > MANY && webgl && Object.keys(DATA.maps).length <= 8;
  const traces = groups.map((group) => {
    const own = points.filter((point) => point.group === group);
    const place = groups.filter((other) => other !== "text").indexOf(group);
    const text = group === "text";
    return {
      type: crowd ? "scattergl" : "scatter", mode: "markers", name: group, x: own.map((p) => p.x), y: own.map((p) => p.y),
      text: own.map((point) => describe(point, true)), hovertemplate: "%{text}<extra></extra>", showlegend: false,
      marker: {
        color: text ? "var(--muted)" : `var(--s${place % 8})`, symbol: text ? "circle" : SYMBOLS[place % 8],
        size: text ? 4 : own.length > 3000 ? 4 : 7, opacity: text ? 0.5 : 0.85, line: { width: 0 },
      },
    };
  });
  const state = { points, groups, traces, found: null };
  maps.set(id, state);
  sources.set(id, () => {
    const data = state.traces.map((trace) => ({ ...trace, visible: !hidden.has(trace.name) }));
    const at = state.found ? [state.found] : [];
    data.push({
      type: crowd ? "scattergl" : "scatter", mode: "markers", x: at.map((p) => p.x), y: at.map((p) => p.y), hoverinfo: "skip", showlegend: false,
      marker: { symbol: "circle-open", size: 20, color: "var(--ink)", line: { width: 2.5 } },
    });
    return { data, layout: { dragmode: "zoom", hovermode: "closest", uirevision: "keep", margin: { l: 8, r: 8, t: 32, b: 8 }, annotations: plan.note ? [{ text: plan.note.text, x: plan.note.at[0], y: plan.note.at[1], ax: -40, ay: -50, arrowcolor: "var(--ink)", arrowwidth: 1, arrowhead: 0, bgcolor: "var(--card)" }] : [], xaxis: { title: { text: plan.axes[0] }, zeroline: false, showticklabels: false }, yaxis: { title: { text: plan.axes[1] }, zeroline: false, showticklabels: false } } };
  });
}
for (const section of $$(".maps")) {
  const charts = $$(".chart.map", section);
  const groups = [...new Set(charts.flatMap((chart) => maps.get(chart.id).groups))];
  const colours = groups.filter((group) => group !== "text");
  for (const group of groups) {
    const label = document.createElement("label"), box = document.createElement("input"), sign = document.createElement("i");
    Object.assign(box, { type: "checkbox", checked: true, value: group });
    box.addEventListener("change", () => {
      box.checked ? hidden.delete(group) : hidden.add(group);
      $$(".chart.map").filter((chart) => drawn.has(chart.id)).forEach(draw);
    });
    const place = colours.indexOf(group);
    sign.textContent = group === "text" ? "●" : GLYPHS[place % 8];
    sign.style.color = group === "text" ? "var(--muted)" : `var(--s${place % 8})`;
    sign.setAttribute("aria-hidden", "true");
    label.append(box, sign, ` ${group}`);
    $(".filters", section).append(label);
  }
  let last = { query: null, at: -1 };
  $(".find", section).addEventListener("submit", (event) => {
    event.preventDefault();
    const query = $("input", event.target).value.trim().toLowerCase(), status = $(".found", section);
    if (!query) return;
    const { points } = maps.get(charts[0].id);
    const matches = points.filter((point) => point.token.toLowerCase().includes(query) || String(point.id) === query);
    last = { query, at: last.query === query ? (last.at + 1) % matches.length : 0 };
    const hit = matches[last.at];
    status.textContent = hit ? `${last.at + 1} of ${matches.length}: ${describe(hit, false)}` : `No token on the map contains “${query}”.`;
    for (const chart of charts) {
      const state = maps.get(chart.id);
      state.found = hit ? state.points.find((point) => point.id === hit.id && point.token === hit.token) || null : null;
      draw(chart);
    }
  });
}

/* Draw each chart when it comes near the window; all of them for print. */
const all = $$(".chart").filter((node) => sources.has(node.id));
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
}, { rootMargin: "300px" });
all.forEach((node) => watcher.observe(node));

function setTheme(theme) {
  root.dataset.theme = theme;
  $("#theme").setAttribute("aria-pressed", String(theme === "dark"));
  all.filter((node) => drawn.has(node.id)).forEach(draw);
}
$("#theme").setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
$("#theme").addEventListener("click", () => {
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  try { localStorage.setItem("gti-diag-theme", theme); } catch { /* a file may have no storage */ }
  setTheme(theme);
});
const PRINTED = 660; // pixels across the narrower of A4 and Letter, margins off
let before = null;
addEventListener("beforeprint", () => {
  before = root.dataset.theme;
  root.dataset.theme = "light";
  for (const node of all) {
    const beside = Math.min(3, node.closest(".grid").children.length), square = node.classList.contains("square");
    const width = Math.floor(PRINTED / beside) - 8, height = square ? Math.min(width, 440) * 1.06 : beside > 1 ? width : 300;
    watcher.unobserve(node);
    draw(node);
    Plotly.relayout(node, { autosize: false, width: square ? Math.min(width, 440) : width, height });
  }
});
addEventListener("afterprint", () => {
  all.forEach((node) => Plotly.relayout(node, { autosize: true, width: null, height: null }));
  setTheme(before);
});

/* Sorting: numbers by value, text by the alphabet, what does not exist last. */
function sortKey(text) {
  const plain = text.trim().replace(/,/g, "").replace(/−/g, "-");
  if (plain === "" || plain === "–") return null;
  const number = /^[<>]?\s*(-?\d+(\.\d+)?(e-?\d+)?)/i.exec(plain);
  return number ? Number(number[1]) : plain.toLowerCase();
}
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true }));
}
function nextOrder(head) {
  const order = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of head.parentNode.children) other.setAttribute("aria-sort", other === head ? order : "none");
  return order === "ascending" ? 1 : -1;
}
for (const table of $$("table.sortable")) {
  if (table.closest(".neighbours")) continue;
  $$("thead button", table).forEach((button, column) => button.addEventListener("click", () => {
    const sign = nextOrder(button.parentNode), body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [sortKey(row.cells[column].textContent), row]);
    rows.sort((a, b) => compare(a[0], b[0], sign)).forEach(([, row]) => body.append(row));
  }));
}

/* The neighbour table: rows come from the data a page at a time. */
const PAGE = 20;
for (const section of $$(".neighbours")) {
  const tables = DATA.neighbours[section.dataset.matrix], body = $("tbody", section), which = $(".which", section), filter = $(".filter", section);
  const keys = [(row) => row[0].toLowerCase(), (row) => row[1], (row) => row[3][0][1], (row) => row[3][0][0].trim().toLowerCase()];
  let page = 0, sort = null;
  if (tables.length === 1) which.parentNode.hidden = true;
  function show() {
    const query = filter.value.trim().toLowerCase();
    let rows = tables[which.value || 0].rows.filter((row) => !query || row[0].toLowerCase().includes(query) || row[3].some(([word]) => word.toLowerCase().includes(query)));
    if (sort) rows = [...rows].sort((a, b) => compare(keys[sort.column](a), keys[sort.column](b), sort.sign));
    page = Math.max(0, Math.min(page, Math.ceil(rows.length / PAGE) - 1));
    body.innerHTML = rows.slice(page * PAGE, (page + 1) * PAGE).map(([name, level, , near]) =>
      `<tr><th scope="row" class="token">${escapeHtml(name)}</th><td class="num">${level ?? "–"}</td><td class="num">${near[0][1].toFixed(3)}</td><td>` +
      near.map(([word, cosine]) => `<span class="near">${escapeHtml(word)} <small>${cosine.toFixed(2)}</small></span>`).join("") + "</td></tr>").join("");
    const end = Math.min(rows.length, (page + 1) * PAGE);
    $(".pager span", section).textContent = rows.length ? `${page * PAGE + 1}–${end} of ${rows.length}` : "no match";
    $(".previous", section).disabled = page === 0;
    $(".next", section).disabled = end >= rows.length;
  }
  $$("thead button", section).forEach((button, column) => button.addEventListener("click", () => { sort = { column, sign: nextOrder(button.parentNode) }; page = 0; show(); }));
  which.addEventListener("change", () => { page = 0; show(); });
  filter.addEventListener("input", () => { page = 0; show(); });
  $(".previous", section).addEventListener("click", () => { page--; show(); });
  $(".next", section).addEventListener("click", () => { page++; show(); });
  show();
}

/* Explanations: on hover and focus as a tooltip, by click in full. */
const tip = $("#tip");
function showTip(target) {
  const line = document.getElementById(`line-${target.dataset.tip}`);
  if (!line) return;
  tip.textContent = line.textContent;
  tip.hidden = false;
  const box = target.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - own.width - 8))}px`;
  tip.style.top = `${box.bottom + own.height + 8 < innerHeight ? box.bottom + 6 : Math.max(8, box.top - own.height - 6)}px`;
}
const hideTip = () => { tip.hidden = true; };
for (const target of $$("[data-tip]")) {
  target.addEventListener("mouseenter", () => showTip(target));
  target.addEventListener("focus", () => showTip(target));
  target.addEventListener("mouseleave", hideTip);
  target.addEventListener("blur", hideTip);
}
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, { passive: true });
function openTarget() {
  const target = location.hash.startsWith("#explain-") ? document.getElementById(location.hash.slice(1)) : null;
  if (target) target.open = true;
}
addEventListener("hashchange", openTarget);
openTarget();

for (const button of $$(".copy")) button.addEventListener("click", async () => {
  const text = $("code", button.parentNode).textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; } catch { getSelection().selectAllChildren($("code", button.parentNode)); button.textContent = "Selected"; }
});
root.dataset.ready = "true";
})();
