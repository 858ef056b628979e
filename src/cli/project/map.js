// Two maps of the same records. What a point stands for shows under the mouse, in both.
const {sensors, series, rows, extents, labelled} = JSON.parse(document.getElementById("data").textContent);
const maps = [...document.querySelectorAll("canvas")], tip = document.getElementById("tip"), by = document.getElementById("by");
const [ROW, SERIES, SCORE, FLAGGED, LABEL, PLACES, VALUES] = [0, 1, 2, 3, 4, 5, 9];
const mix = (from, to, t) => "rgb(" + from.map((v, i) => Math.round(v + (to[i] - v) * t)) + ")";
const last = rows.length ? rows[rows.length - 1][ROW] : 1, first = rows.length ? rows[0][ROW] : 0;
const colours = {
  score: r => r[FLAGGED] ? mix([240, 150, 60], [170, 20, 20], Math.min(1, Math.max(0, (r[SCORE] - 1) / 3))) : mix([200, 208, 216], [70, 90, 110], Math.min(1, r[SCORE])),
  series: r => `hsl(${(r[SERIES] * 137.5) % 360} 60% 45%)`,
  time: r => mix([230, 200, 70], [50, 30, 120], (r[ROW] - first) / Math.max(1, last - first)),
  label: r => r[LABEL] ? "rgb(200,55,30)" : "rgb(150,165,180)",
};
// Strange ones last, so that none hides under others.
const order = rows.map((_, i) => i).sort((a, b) => rows[a][FLAGGED] - rows[b][FLAGGED] || rows[a][LABEL] - rows[b][LABEL]);
const means = {
  score: "grey: normal, the darker the nearer to the threshold; orange to red: flagged",
  series: "one colour for each series",
  time: "yellow: first rows, violet: last rows",
  label: "red: labelled as anomalies",
};
let under = -1;

function place(map, row) {
  const [x0, x1, y0, y1] = extents[map], c = maps[map];
  const at = (v, from, to, size) => 6 + (size - 12) * Math.min(1, Math.max(0, (v - from) / (to - from || 1)));
  return [at(row[PLACES + 2 * map], x0, x1, c.width), c.height - at(row[PLACES + 2 * map + 1], y0, y1, c.height)];
}

function draw() {
  document.getElementById("means").textContent = means[by.value];
  maps.forEach((c, map) => {
    const g = c.getContext("2d");
    g.clearRect(0, 0, c.width, c.height);
    for (const i of order) {
      const [x, y] = place(map, rows[i]);
      g.fillStyle = colours[by.value](rows[i]);
      g.globalAlpha = rows[i][FLAGGED] || rows[i][LABEL] ? 0.9 : 0.55;
      g.beginPath(); g.arc(x, y, 2.5, 0, 7); g.fill();
    }
    if (under >= 0) {
      const [x, y] = place(map, rows[under]);
      g.globalAlpha = 1; g.lineWidth = 2; g.strokeStyle = "#000";
      g.beginPath(); g.arc(x, y, 7, 0, 7); g.stroke();
    }
  });
}

function show(event, map) {
  const box = maps[map].getBoundingClientRect(), scale = maps[map].width / box.width;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  let near = 15 * 15, found = -1;
  rows.forEach((row, i) => {
    const [px, py] = place(map, row), d = (px - x) ** 2 + (py - y) ** 2;
    if (d < near) [near, found] = [d, i];
  });
  if (found !== under) { under = found; draw(); }
  tip.hidden = found < 0;
  if (found < 0) return;
  const r = rows[found], name = series[r[SERIES]];
  const head = `row ${r[ROW]}${name ? ", " + name : ""}: score ${r[SCORE]}${r[FLAGGED] ? ", flagged" : ""}${r[LABEL] ? ", labelled" : ""}`;
  tip.textContent = [head, ...sensors.map((s, i) => `${s}  ${r[VALUES + i] ?? "missing"}`)].join("\n");
  tip.style.left = Math.min(event.pageX + 14, document.documentElement.clientWidth - tip.offsetWidth - 8) + "px";
  tip.style.top = event.pageY + 14 + "px";
}

maps.forEach((c, map) => {
  c.addEventListener("mousemove", event => show(event, map));
  c.addEventListener("mouseleave", () => { under = -1; tip.hidden = true; draw(); });
});
by.querySelector("[value=label]").disabled = !labelled;
by.addEventListener("change", draw);
draw();
