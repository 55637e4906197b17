"""The page of all results in a folder: one file of HTML that works offline, beside the figures."""

import html
import math
from pathlib import Path
from typing import Any

from .claim import PAPERS, Number


def render(chapters: dict[str, tuple[str, ...]], records: dict[str, dict[str, Any]]) -> str:
    """The page of the given records, in the order of the chapters."""
    parts, overview = [], []
    for chapter, names in chapters.items():
        present = [name for name in names if name in records]
        if present:
            links = "".join(
                f'<li><a href="#{name}">{title(name)}</a>: {_verdict(records[name])}</li>' for name in present
            )
            overview.append(f"<li>{html.escape(chapter)}<ul>{links}</ul></li>")
            parts.append(f"<h2>{html.escape(chapter)}</h2>")
            parts += [_section(name, records[name]) for name in present]
    widgets = _WIDGETS if len(records) > 1 else ""
    return _PAGE.format(style=_STYLE, overview="\n".join(overview), sections="\n".join(parts), widgets=widgets)


def title(name: str) -> str:
    """The name of an experiment, in words."""
    return name.replace("_", " ")


def _verdict(record: dict[str, Any]) -> str:
    return "holds" if record["holds"] else '<b class="no">does not hold</b>'


def _section(name: str, record: dict[str, Any]) -> str:
    formulas = "".join(_image(file, text, "formula") for file, text in record["formulas"])
    figures = "".join(f"<figure>{_image(file, text, 'plot')}</figure>" for file, text in record["figures"])
    told = [
        (heading, record[key])
        for heading, key in (("What would refute it", "refuted_by"), ("What it does not show", "caveats"))
    ]
    words = "".join(f"<p><b>{heading}.</b> {html.escape(text)}</p>" for heading, text in told if text)
    tested = "".join(f"<p>{html.escape(part)}</p>" for part in record.get("how", "").split("\n\n") if part)
    how = f"<details><summary>How it is tested</summary>{tested}</details>" if tested else ""
    papers = ", ".join(f'<a href="{PAPERS[key][1]}">{html.escape(PAPERS[key][0])}</a>' for key in record["papers"])
    code = html.escape(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8"))
    version = ", small version" if record["small"] else ""
    opened = "" if record["holds"] else " open"
    missed = sum(not number["holds"] for number in record["numbers"])
    summary = f"{len(record['numbers'])} numbers, " + (f"{missed} not as expected" if missed else "all as expected")
    return f"""<section id="{name}" aria-labelledby="{name}-title">
<h3 id="{name}-title">{title(name)} <span class="verdict">{_verdict(record)}</span></h3>
<p class="plain">{html.escape(record["plain"])}</p>
<div class="formulas">{formulas}</div>
<p>{html.escape(record["claim"])}</p>
<div class="figures">{figures}</div>
{words}
{how}
<details{opened}><summary>{summary}</summary><div class="scroll" tabindex="0" role="region"
 aria-label="numbers of {title(name)}"><table>
<tr><th scope="col">number</th><th scope="col">measured</th><th scope="col">expected</th><th scope="col"></th></tr>
{"".join(map(_row, record["numbers"]))}</table></div>
<p class="small">seed {record["seed"]}, {record["seconds"]:.1f} s{version}</p></details>
<details><summary>Code: <code>wgan_fast/experiments/{name}.py</code></summary><div class="scroll" tabindex="0"
 role="region" aria-label="code of {title(name)}"><pre>{code}</pre></div></details>
<p class="small">Papers: {papers or "see the claim"}</p>
</section>"""


def _image(file: str, text: str, kind: str) -> str:
    return f'<img class="{kind}" src="{html.escape(file)}" alt="{html.escape(text)}">'


def _row(record: dict[str, Any]) -> str:
    measured, expected, tolerance = (float(record[key]) for key in ("measured", "expected", "tolerance"))
    number = Number(record["what"], measured, expected, tolerance, record["relation"])
    what = html.escape(number.what) + (' <em class="small">(a check of the code)</em>' if record["of_code"] else "")
    shown = "&infin;" if math.isinf(measured) and measured > 0 else f"{measured:.4g}"
    cells = (what, shown, html.escape(number.wanted).replace("inf", "&infin;"), _verdict(record))
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"


_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #666; --line: #ccc; --no: #b00; --link: #0b57a4;
 --blue: #0072B2; --red: #C04A00; }
@media (prefers-color-scheme: dark) {
 :root { --ink: #e4e4e4; --paper: #121212; --faint: #a0a0a0; --line: #444; --no: #ff8a80; --link: #8ab4f8;
  --blue: #56B4E9; --red: #E69F00; }
 img { filter: invert(0.93) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 0 auto; padding: 1rem; color: var(--ink);
 background: var(--paper); overflow-wrap: break-word; }
a { color: var(--link); } h3 { margin-bottom: .2rem; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { position: static; }
p, li { max-width: 48rem; } .plain { font-size: 1.15rem; } .small { color: var(--faint); font-size: 85%; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
.formulas { display: flex; flex-wrap: wrap; gap: .8rem 2rem; align-items: center; margin: .6rem 0; }
.formula { max-width: 100%; height: auto; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: .6rem; }
figure { margin: 0; } .plot { width: 100%; max-width: 34rem; height: auto; }
.scroll { overflow-x: auto; } pre { font-size: 85%; } table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line); }
.verdict { font-size: 75%; font-weight: normal; color: var(--faint); } .no { color: var(--no); }
.widget svg { width: 100%; max-width: 34rem; height: auto; display: block; touch-action: pan-y; }
.widget label { display: block; } .widget input[type=range] { width: min(100%, 24rem); }
.box { cursor: grab; } .ink { stroke: var(--ink); fill: var(--ink); } .blue { stroke: var(--blue); fill: var(--blue); }
.red { stroke: var(--red); fill: var(--red); } .hollow { fill: none; }
.widget text { stroke: none; font: 11px sans-serif; }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>The theory of Wasserstein GANs, executed</title>
<style>{style}</style></head><body>
<a class="skip" href="#content">Skip to the claims</a>
<header><h1>The theory of Wasserstein GANs, executed</h1>
<p>Each claim below was tested by a short script: what the theory expects, what was measured, and what would have
refuted it.</p>
<nav aria-label="claims"><ul>
{overview}
</ul></nav></header>
<main id="content">
{widgets}
{sections}
</main></body></html>
"""

_WIDGETS = """<section id="try" class="widget" aria-labelledby="try-title"><h2 id="try-title">Try it</h2>
<h3>Move the boxes</h3>
<p>Drag a box along the line, or focus it and press the arrow keys. The lines are the cheapest plan to the places
below; on a line it keeps the order.</p>
<svg id="boxes" viewBox="0 0 340 190" role="group" aria-label="six boxes above a line, six places below it"></svg>
<p aria-live="polite" id="boxes-cost"></p>
<h3>Two parallel lines, with noise</h3>
<label>distance of the lines, theta <output id="theta-value"></output>
<input id="theta" type="range" min="-1" max="1" step="0.01" value="0.5"></label>
<label>standard deviation of the noise, sigma <output id="sigma-value"></output>
<input id="sigma" type="range" min="0" max="1" step="0.01" value="0"></label>
<svg id="lines" viewBox="0 0 340 120" role="img" aria-label="densities of the two lines across"></svg>
<p aria-live="polite" id="lines-values"></p>
<h3>The slope of a critic</h3>
<label>slope s of the critic f(x) = s x <output id="slope-value"></output>
<input id="slope" type="range" min="0" max="2" step="0.01" value="0.9"></label>
<label>weight of the penalty <output id="weight-value"></output>
<input id="weight" type="range" min="1" max="50" step="1" value="10"></label>
<svg id="critic" viewBox="0 0 340 120" role="img" aria-label="objective of the critic against its slope"></svg>
<p aria-live="polite" id="critic-values"></p>
</section>
<script>
"use strict";
const at = id => document.getElementById(id), places = [7, 8, 9, 9, 10, 10];
const boxes = [1, 1, 1, 2, 3, 3], scale = x => 15 + 26 * x;
function element(parent, kind, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const key in attributes) e.setAttribute(key, attributes[key]);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}
// Boxes: squares that are dragged or moved by keys; the cheapest plan on a line is in order.
const picture = at("boxes"), plan = element(picture, "g", {class: "ink hollow", "stroke-opacity": .5});
for (let x = 0; x <= 12; x++) element(picture, "text", {x: scale(x) - 4, y: 186, class: "ink"}, x);
places.forEach((x, i) => {
  const level = places.slice(0, i).filter(y => y === x).length;
  element(picture, "rect", {x: scale(x) - 9, y: 126 + 20 * level, width: 18, height: 18, class: "ink hollow"});
});
const squares = boxes.map((x, i) => {
  const e = element(picture, "rect", {width: 18, height: 18, class: "blue box", tabindex: 0, role: "slider",
    "aria-label": "box " + (i + 1), "aria-valuemin": 0, "aria-valuemax": 12});
  const move = x => { boxes[i] = Math.min(12, Math.max(0, Math.round(x))); drawBoxes(); };
  e.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1}[event.key];
    if (step) { move(boxes[i] + step); event.preventDefault(); }
  });
  e.addEventListener("pointerdown", event => {
    e.setPointerCapture(event.pointerId);
    event.preventDefault();
    e.focus();
  });
  e.addEventListener("pointermove", event => {
    if (!e.hasPointerCapture(event.pointerId)) return;
    const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse());
    move((p.x - 15) / 26);
  });
  return e;
});
function drawBoxes() {
  const heights = {};
  squares.forEach((e, i) => {
    const level = heights[boxes[i]] = (heights[boxes[i]] || 0) + 1;
    const step = Math.min(20, 40 / (boxes.filter(x => x === boxes[i]).length - 1)); // high stacks overlap
    e.setAttribute("x", scale(boxes[i]) - 9);
    e.setAttribute("y", 42 - step * (level - 1));
    e.setAttribute("aria-valuenow", boxes[i]);
  });
  const order = boxes.map((x, i) => [x, i]).sort((a, b) => a[0] - b[0]).map(pair => pair[0]);
  plan.replaceChildren();
  let cost = 0;
  order.forEach((x, i) => {
    cost += Math.abs(x - places[i]);
    element(plan, "line", {x1: scale(x), y1: 62, x2: scale(places[i]), y2: 126});
  });
  at("boxes-cost").textContent = "Cheapest cost " + cost + ", so W = " + (cost / 6).toFixed(2) + " per box.";
}
drawBoxes();
function path(parent, f, from, to, x, y, kind) {
  let d = "";
  for (let i = 0; i <= 600; i++) {
    const t = from + (to - from) * i / 600;
    d += (i ? "L" : "M") + x(t).toFixed(1) + " " + y(f(t)).toFixed(1);
  }
  element(parent, "path", {d, class: kind + " hollow", "stroke-width": 2});
}
// Across the lines, both are normal densities; JS by the trapezium rule. W is |theta| for every sigma.
function drawLines() {
  const theta = +at("theta").value, sigma = +at("sigma").value, svg = at("lines");
  at("theta-value").textContent = theta.toFixed(2);
  at("sigma-value").textContent = sigma.toFixed(2);
  svg.replaceChildren();
  const x = t => 170 + 55 * t, peak = Math.max(sigma, .02), density = (t, m) => Math.exp(-.5 * ((t - m) / peak) ** 2);
  path(svg, t => density(t, 0), -3, 3, x, v => 110 - 95 * v, "blue");
  path(svg, t => density(t, theta), -3, 3, x, v => 110 - 95 * v, "red");
  let js = theta === 0 ? 0 : Math.log(2), kl = theta === 0 ? 0 : Infinity;
  if (sigma > 0) {
    kl = theta * theta / 2 / sigma / sigma;
    const low = Math.min(0, theta) - 9 * sigma, h = (Math.abs(theta) + 18 * sigma) / 4000;
    const norm = 1 / sigma / Math.sqrt(2 * Math.PI), part = (p, q) => p > 0 ? p * Math.log(2 * p / (p + q)) / 2 : 0;
    js = 0;
    for (let i = 0; i <= 4000; i++) {
      const t = low + i * h;
      const p = norm * Math.exp(-.5 * (t / sigma) ** 2), q = norm * Math.exp(-.5 * ((t - theta) / sigma) ** 2);
      js += h * (part(p, q) + part(q, p));
    }
  }
  at("lines-values").textContent = "W = " + Math.abs(theta).toFixed(2) + ", JS = " + js.toFixed(3) + ", KL = " +
    (isFinite(kl) ? kl.toFixed(2) : "infinite");
}
// Point masses at 0 and 1: the critic of slope s gains s - weight (s - 1)^2.
function drawCritic() {
  const s = +at("slope").value, weight = +at("weight").value, svg = at("critic"), best = 1 + 1 / 2 / weight;
  at("slope-value").textContent = s.toFixed(2);
  at("weight-value").textContent = weight;
  svg.replaceChildren();
  const x = t => 15 + 155 * t, value = t => t - weight * (t - 1) ** 2, y = v => Math.min(118, 60 - 40 * v);
  path(svg, value, 0, 2, x, y, "blue");
  element(svg, "line", {x1: x(1), x2: x(1), y1: 0, y2: 120, class: "ink", "stroke-dasharray": 3});
  element(svg, "circle", {cx: x(s), cy: y(value(s)), r: 5, class: "red"});
  at("critic-values").textContent = "W = 1. Estimate " + s.toFixed(2) +
    ", penalty " + (weight * (s - 1) ** 2).toFixed(2)
    + "; best slope 1 + W / (2 weight) = " + best.toFixed(3) + ".";
}
for (const id of ["theta", "sigma"]) at(id).addEventListener("input", drawLines);
for (const id of ["slope", "weight"]) at(id).addEventListener("input", drawCritic);
drawLines();
drawCritic();
</script>"""
