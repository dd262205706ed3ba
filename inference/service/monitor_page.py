"""A drift report as one HTML page that needs nothing else: verdict, alarms with what to do, plots, every feature's figures."""

from __future__ import annotations

from math import isnan

from jinja2 import Environment
from markupsafe import Markup, escape

from inference.monitor import ALARM_LEVEL, LEAST_EFFECT, WATCH_LEVEL
from inference.monitor_command import figures
from inference.monitor_report import Report
from inference.monitor_words import GROUPS, sentence, title_of
from inference.service.monitor_plot import plot_svg

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Nabz: drift {{ span }}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;color:#1a1a1a;background:#fff;max-width:72rem;margin:0 auto;padding:1.5rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.verdict{border-left:.4rem solid {{ "#B00020" if alarms else "#2E7D32" }};padding:.5rem 1rem;background:#f6f6f6;margin:1rem 0}
.alarm{border:1px solid #ddd;border-radius:.4rem;padding:.6rem 1rem;margin:.6rem 0}
.alarm h3{margin:0;font-size:1rem;color:#B00020}.alarm p{margin:.25rem 0}.figures{color:#555;font-size:.85rem}
.note{color:#444;font-size:.95rem}
table{border-collapse:collapse;font-size:.85rem;width:100%}td,th{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #eee;white-space:nowrap}
td:first-child,th:first-child{text-align:left;white-space:normal}tr.alarm-row td{color:#B00020;font-weight:600}
.scroll{overflow-x:auto}svg{width:100%;min-width:46rem;height:auto}code{font-size:.9em;background:#f1f1f1;padding:0 .2em;border-radius:.2em}summary{cursor:pointer;padding:.4rem 0}
footer{margin-top:2rem;color:#555;font-size:.85rem;border-top:1px solid #ddd;padding-top:.75rem}
</style></head><body>
<h1>Drift, {{ span }}</h1>
<p class="note">{{ last.n }} cases against {{ report.reference_n }} of the reference: {{ report.reference_source }}.</p>
<div class="verdict"><strong>{{ alarms|length ~ " features have drifted" if alarms|length > 1 else "one feature has drifted" if alarms else "quiet" }}.</strong>
An alarm is a change of at least {{ least }} (stability index beyond chance) whose chance among all features together is at most {{ level }} %,
or {{ watch }} % in two of three windows.</div>
{% for note in report.notes %}<p class="note"><strong>Note:</strong> {{ sentence(note)|commands }}</p>{% endfor %}
{% for group in groups if by_group[group] %}<h2>{{ group|capitalize }}</h2>
{% for one in by_group[group] %}<div class="alarm"><h3>{{ one.title }}</h3><p>{{ sentence(one.meaning) }}</p>
<p><strong>Do:</strong> {{ sentence(one.advice)|commands }}</p><p class="figures">{{ figures(one) }}</p></div>{% endfor %}{% endfor %}
{% if watches %}<h2>To keep an eye on</h2><ul>{% for one in watches %}<li>{{ one.title }}: {{ one.meaning }}</li>{% endfor %}</ul>{% endif %}
{% if plotted %}<h2>Reference and recent</h2>
<p class="note">Grey is the reference, blue the last window. Numbers: thin line 5 to 95 %, thick 25 to 75 %, dot the median.</p>
<div class="scroll">{{ plot }}</div>{% endif %}
{% if calibrated %}<h2>Emergency probabilities against outcomes</h2><div class="scroll"><table>
<tr><th>window</th><th>n</th><th>emergencies</th><th>predicted</th><th>observed / expected</th><th>in the large</th><th>slope</th><th>ECE</th></tr>
{% for window in calibrated %}{% set c = window.calibration %}<tr><td>{{ window.start.date() if window.start else "" }}</td><td>{{ c.n }}</td>
<td>{{ c.events }}</td><td>{{ "%.1f"|format(c.expected) }}</td>
<td>{{ number(c.observed_to_expected, 2) }} ({{ number(c.ratio_interval[0], 2) }} to {{ number(c.ratio_interval[1], 2) }})</td>
<td>{{ number(c.intercept, 2) }} (± {{ number(1.96 * c.intercept_error, 2) }})</td><td>{{ number(c.slope, 2) }} (± {{ number(1.96 * c.slope_error, 2) }})</td>
<td>{{ number(c.ece, 3) }} ({{ number(c.ece_interval[0], 3) }} to {{ number(c.ece_interval[1], 3) }})</td></tr>{% endfor %}</table></div>{% endif %}
<h2>Every feature</h2><details><summary>{{ last.changes|length }} features, largest change first</summary><div class="scroll"><table>
<tr><th>feature</th><th>kind</th><th>PSI</th><th>by chance</th><th>beyond</th><th>p among all</th><th>n</th><th>n reference</th></tr>
{% for one in ordered %}<tr{% if one.state == "alarm" %} class="alarm-row"{% endif %}><td>{{ title_of(one.feature) if one.title == one.feature else one.title }}</td>
<td>{{ one.family }}</td><td>{{ number(one.psi, 3) }}</td><td>{{ number(one.psi_by_chance, 3) }}</td><td>{{ number(one.excess, 3) }}</td>
<td>{{ number(one.p_adjusted, 4) }}</td><td>{{ one.n_recent }}</td><td>{{ one.n_reference }}</td></tr>{% endfor %}</table></div></details>
{% if report.not_compared %}<p class="note">Not compared, because the reference knows nothing of it: {{ report.not_compared|join(", ") }}.</p>{% endif %}
<footer>Aggregates only: no case, name, complaint or photo is in this page, and no district with fewer than five cases.
Decision support, not a medical device.</footer></body></html>
"""


def page_of(report: Report) -> str:
    """The page as HTML."""
    last = report.last
    alarms = last.alarms
    environment = Environment(autoescape=True)
    environment.globals.update(figures=figures, number=_number, sentence=sentence, title_of=lambda feature: title_of(feature, {}))
    environment.filters["commands"] = _with_commands
    plot = plot_svg(report)
    return environment.from_string(_TEMPLATE).render(
        report=report,
        last=last,
        span=f"{last.start:%d %b %Y} to {last.end:%d %b %Y}" if last.start and last.end else "last window",
        alarms=alarms,
        groups=GROUPS,
        by_group={group: [one for one in alarms if one.group == group] for group in GROUPS},
        watches=[one for one in last.changes if one.state == "watch"],
        plotted=bool(alarms) or any(one.state == "watch" for one in last.changes),
        plot=Markup(plot),  # noqa: S704 (matplotlib escapes the text it draws)
        calibrated=[window for window in report.windows if window.calibration is not None],
        ordered=sorted(last.changes, key=lambda one: (-one.excess if not isnan(one.excess) else 0.0, one.feature)),
        least=f"{LEAST_EFFECT:g}",
        level=f"{100 * ALARM_LEVEL:g}",
        watch=f"{100 * WATCH_LEVEL:g}",
    )


def _with_commands(words: str) -> Markup:
    """Words between backticks as code, everything escaped."""
    parts = words.split("`")
    shown = [Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)]
    return Markup("").join(shown)


def _number(value: float, digits: int) -> str:
    return "–" if isnan(value) else f"{value:.{digits}f}"
