#!/usr/bin/env python3
"""Makes RESULTS.md, results.json and the figures of what benchmarks/run.sh has measured.

usage: report.py PARTS --output RESULTS.md --command COMMAND --compiler CXX [--quick] [--failed NAME]...

PARTS holds race.json (benchmark_race), python.json and gpu.json (race/python.py on the CPU and with --device cuda, or not), one Google
Benchmark JSON file a program, and compile_seconds.json. The figures go to `figures/` beside RESULTS.md. Needs matplotlib (Debian: python3-matplotlib).
"""

import argparse
import datetime
import json
import math
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

PROGRAMS = ["js_routing", "gate_softmax", "top_k", "routing_histogram", "js_divergence"]
WHOLE = "loss and gradient"
SAME_ERROR = 6e-8  # a rounding of fp32: the largest error of millions of entries is one row's luck, and differs so much by data
NEARER = "nearer to the oracle by more than a rounding of fp32, which is what the largest error of millions of entries owes to one row's luck."

# Beside a row that is quicker by less than this: the order of such changes from run to run.
LEVEL = 1.05


# ---- reading


def read(path):
    return json.loads(path.read_text()) if path.exists() and path.stat().st_size else None


def name_of(contestant):
    return contestant["library"] + (", " + contestant["how"] if contestant["how"] else "")


def is_timed(contestant):
    return contestant["status"] == "ok" and "seconds" in contestant


def of_job(heat, job):
    return [c for c in heat["contestants"] if c["job"] == job]


def jobs_of(heat):
    return list(dict.fromkeys(c["job"] for c in heat["contestants"]))


def first_of_sara(contestants):
    """The race's own contestant, that the others are compared with: the best instruction set on all threads."""
    return next((c for c in contestants if c["library"] == "sara"), None)


def sara_beside(contestants, c):
    """What a contestant is compared with: a replayed CUDA graph with ours, all else with our first."""
    is_replayed = lambda c: c["how"].endswith("CUDA graph")
    ours = [s for s in contestants if s["library"] == "sara"]
    return next((s for s in ours if is_replayed(s) == is_replayed(c)), ours[0] if ours else None)


class Benchmarks:
    """Medians of a Google Benchmark JSON file, by name and in the order of the program, which its turns did not keep to."""

    def __init__(self, recorded):
        self.rows = {}
        for run in sorted(recorded["benchmarks"], key=lambda run: run.get("family_index", 0)) if recorded else []:
            name = re.sub(r"/real_time$", "", run["run_name"])
            row = self.rows.setdefault(name, {})
            if run.get("error_occurred"):
                row["error_message"] = run["error_message"]
            elif run["run_type"] == "aggregate" and run["aggregate_name"] == "cv":
                row["spread"] = run["real_time"]
            elif run["run_type"] == "aggregate" and run["aggregate_name"] == "median" or run.get("repetitions", 1) <= 1:
                row.update(run)

    def value(self, name, key):
        return self.rows.get(name, {}).get(key)


# ---- the text


def number(value, digits=3):
    if value is None:
        return ""
    if value == 0:
        return "0"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def error(value):
    return "" if value is None else "inf" if value >= 1e300 else f"{value:.1e}" if value else "0"


def table(head, rows, left=1):
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(" --- " if i < left else " --: " for i in range(len(head))) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def heat_table(heat):
    rows = []
    threads = lambda c: "" if "on_device" in heat else str(c["threads"])
    for job in jobs_of(heat):
        contestants = of_job(heat, job)
        rank = sorted((c for c in contestants if is_timed(c)), key=lambda c: c["seconds"])
        for c in contestants:
            if not is_timed(c):
                status = {"wrong": "**wrong**: not ranked", "no quiet turn": "no quiet turn"}.get(c["status"], c.get("detail") or c["status"])
                rows.append([job, name_of(c), threads(c), status, "", "", f"{c['kept']} of {c['turns']}", error(c.get("error_value")), error(c.get("error_gradient")), ""])
                continue
            ours = sara_beside(contestants, c)
            times = c["seconds"] / ours["seconds"] if ours and is_timed(ours) else None
            rows.append([
                job, ("**" + name_of(c) + "**") if c is rank[0] else name_of(c), threads(c), number(c["seconds"] * 1e6, 4),
                number(heat["elements"] / c["seconds"] * (1e-9 if heat["unit"] == "Gelem/s" else 1e-6)),
                " - ".join(number(q * 1e6, 4) for q in c["quartiles"]), f"{c['kept']} of {c['turns']}",
                error(c.get("error_value")), error(c.get("error_gradient")), number(times) if times else "",
            ])
    compiled = [f"{name_of(c)} ({c['job']}) {c['compile_seconds']:.1f} s" for c in heat["contestants"] if c.get("compile_seconds") is not None]
    note = "\n\nCompiled before it was timed: " + ", ".join(compiled) + "." if compiled else ""
    return table(["job", "contestant", "threads", "us", heat["unit"], "quartiles, us", "turns kept", "error of value", "of gradient", "times sara's" if "on_device" in heat else "times sara's first"], rows, 2) + note


def heat_text(heat):
    roof = f"A copy of as many bytes ({number(heat['bytes'] * 1e-6)} MB): {number(heat['copy_seconds'] * 1e6, 4)} us. " if "copy_seconds" in heat and "bytes" in heat else ""
    apart = heat.get("from_autograd_in_double")
    double = f"In double, against libtorch's autograd: loss {apart[0]:.1e} apart, gradient {apart[1]:.1e} of its largest entry." if apart else ""
    return f"### {heat['title']}\n\n" + (roof + double + "\n\n" if roof or double else "") + heat_table(heat) + "\n"


def others_ahead(heats):
    """Every contestant of another library that is quicker than ours at the same job, or nearer to the oracle."""
    quicker, nearer = [], []
    for heat in heats:
        for job in jobs_of(heat):
            contestants = of_job(heat, job)
            for c in contestants:
                ours = sara_beside(contestants, c)
                if not ours or c["library"] == "sara" or c["status"] == "wrong":
                    continue
                if is_timed(c) and is_timed(ours) and c["seconds"] < ours["seconds"]:
                    quicker.append((heat["title"], job, c, ours["seconds"] / c["seconds"]))
                for key, what, rounding in (("error_value", "value", 0), ("error_gradient", "gradient", heat.get("gradient_rounding", 0))):
                    if c.get(key) is not None and ours.get(key) is not None and c[key] < ours[key] - max(SAME_ERROR, rounding):
                        nearer.append((heat["title"], job, c, what, c[key], ours[key]))
    return quicker, nearer


def ahead_text(heats):
    quicker, nearer = others_ahead(heats)
    lines = []
    for title, job, c, times in quicker:
        level = " Level: one or the other by some percent, from run to run." if times < LEVEL else ""
        lines.append(f"- {title}: at {job}, {name_of(c)} is {times:.2f} times as quick.{level}")
    for title, job, c, what, theirs, mine in nearer:
        lines.append(f"- {title}: at {job}, {name_of(c)} has an error of the {what} of {error(theirs)}, sara {error(mine)}.")
    if not lines:
        return "Nobody: no contestant of another library was quicker at the same job in any heat, nor " + NEARER
    if not nearer:
        lines.append("\nNo contestant of another library was " + NEARER)
    return "\n".join(lines)


def benchmark_table(benchmarks):
    rows = []
    known = {"elements/s", "bytes/s", "of copy", "error"}
    for name, run in benchmarks.rows.items():
        if "error_message" in run:
            rows.append([name, run["error_message"], "", "", "", "", "", ""])
            continue
        if "real_time" not in run:
            continue
        fields = {"name", "family_index", "per_family_instance_index", "run_name", "run_type", "repetitions", "threads", "aggregate_name", "aggregate_unit", "iterations", "real_time",
                  "cpu_time", "time_unit", "repetition_index", "spread", "error_occurred", "error_message"}
        also = ", ".join(f"{key} {number(value)}" for key, value in run.items() if key not in fields | known)
        rate = lambda key: number(run[key] * 1e-9) if key in run else ""
        rows.append([name, number(run["real_time"], 4), rate("elements/s"), rate("bytes/s"), f"{100 * run['of copy']:.0f} %" if "of copy" in run else "",
                     error(run.get("error")), f"{100 * run['spread']:.0f} %" if "spread" in run else "", also])
    return table(["benchmark", "us", "Gelem/s", "GB/s", "of copy", "error", "spread", "also"], rows)


class Targets:
    def __init__(self):
        self.rows = []

    def add(self, name, bound, figure, percent=False, at_most=False):
        text = "not measured" if figure is None else f"{100 * figure:.0f} %" if percent else f"{figure:.2f}"
        short = figure is not None and (figure > bound if at_most else figure < bound)
        self.rows.append([name, f"{100 * bound:.0f} %" if percent else f"{bound:g}", text + (" (**short**)" if short else "")])


def targets(race, benchmarks):
    js = benchmarks["js_routing"]
    best = race["instruction_set"] if race else None
    rate = lambda case, key="elements/s": (lambda v: None if v is None else v * 1e-9)(js.value(f"js_routing/{case}/{best}/threads:2", key))
    heats = {(h["kind"], h["name"]): h for h in race["heats"]} if race else {}

    def times(kind, name, job, library, how):
        heat = heats.get((kind, name))
        if not heat:
            return None
        ours = first_of_sara(of_job(heat, job))
        theirs = next((c for c in heat["contestants"] if c["library"] == library and c["how"].startswith(how)), None)
        return theirs["seconds"] / ours["seconds"] if ours and theirs and is_timed(ours) and is_timed(theirs) else None

    small, large = "8x1024x128", "8x4096x256"
    t = Targets()
    for storage, of in (("fp32", "loss and gradient"), ("bf16-fp32", "bf16 logits, fp32 gradient"), ("bf16", "bf16 logits, bf16 gradient")):
        for shape, bound in ((small, {"fp32": 3.5, "bf16-fp32": 2.5, "bf16": 1.7}[storage]), (large, {"fp32": 2.3, "bf16-fp32": 2.5, "bf16": 1.7}[storage])):
            t.add(f"{of}, {shape}, Gelem/s", bound, rate(f"{storage}/{shape}/overwrite"))
            if storage == "fp32":
                t.add(f"the same, accumulated, {shape}", 2.4 if shape == small else 1.7, rate(f"{storage}/{shape}/accumulate"))
    t.add(f"of the copy's bandwidth, {large} (the aim beyond)", 0.7, js.value(f"js_routing/fp32/{large}/overwrite/{best}/threads:2", "of copy"), percent=True)
    t.add(f"times as quick as libtorch eager + autograd, {small}", 4, times("loss", small, WHOLE, "libtorch", "eager"))
    t.add(f"times as quick as libtorch eager + autograd, {large}", 9, times("loss", large, WHOLE, "libtorch", "eager"))
    t.add(f"all of it, times as quick as oneDNN's softmax forward alone, {small}", 1, times("softmax", small, WHOLE, "oneDNN", "softmax"))
    t.add("top-k, 8 of 128: times as quick as torch.topk", 10, times("top_k", "8 of 128", "top-k", "libtorch", "topk"))
    for pair in ("60/64", "129/128", "257/256", "385/384"):
        heat = heats.get(("odd", pair))
        whole, other = heat["contestants"] if heat else ({}, {})
        figure = other["seconds"] / other["at"] / (whole["seconds"] / whole["at"]) if heat and is_timed(whole) and is_timed(other) else None
        t.add(f"time an element, {pair} experts (at most)", 1.25, figure, at_most=True)
    return table(["fp32 unless said, two threads", "target", "measured"], t.rows)


def said_by(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def machine(arguments, race, python, gpu):
    cpu = dict(re.split(r":\s+", line.strip(), maxsplit=1) for line in said_by("lscpu").splitlines() if re.search(r":\s+\S", line))
    release = dict(line.split("=", 1) for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "=" in line)
    version = ".".join(re.findall(r"#define SARA_VERSION_[A-Z]+ (\d+)", pathlib.Path("include/sara/version.hpp").read_text()))
    commit = said_by("git", "describe", "--always", "--exclude=*", "--dirty= and changes to it").strip() if pathlib.Path(".git").exists() else ""
    under = f", under {cpu['Hypervisor vendor']}" if "Hypervisor vendor" in cpu else ""
    flags = cpu.get("Flags", "").split()
    lacks = [isa for isa, flag in (("AVX2", "avx2"), ("AVX-512", "avx512f")) if flags and flag not in flags]
    gpu_here = "`benchmarks/cuda/` has its figures" if shutil.which("nvidia-smi") else "none here: nothing of this page was run on one (`benchmarks/cuda/` has what is)"
    if gpu and gpu["heats"]:
        gpu_here = f"{gpu['device']}; `benchmarks/cuda/` has more of it"
    rows = [
        ["date", datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")],
        ["command", f"`{arguments.command.strip()}`"],
        ["version", version + (f", commit {commit}" if commit else "")],
        ["processor", f"{cpu.get('Model name', '?')} (family {cpu.get('CPU family', '?')}, model {cpu.get('Model', '?')}), {cpu.get('CPU(s)', '?')} processors, {cpu.get('Thread(s) per core', '?')} threads a core{under}"],
        ["caches", ", ".join(f"{level} {cpu[level + ' cache']}" for level in ("L1d", "L2", "L3") if level + " cache" in cpu)],
        ["instruction sets", (f"the best here: {race['instruction_set']}" if race else "not raced") + (f"; not run, as this machine lacks them: {', '.join(lacks)}" if lacks else "")],
        ["GPU", gpu_here],
        ["system", f"{release.get('PRETTY_NAME', '?').strip(chr(34))}, Linux {platform.release()}"],
        ["compiler", f"{said_by(arguments.compiler, '--version').splitlines()[0]}, `-O2` and no other flag that changes the code, unless a row says so"],
    ]
    packages = said_by("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n", "libbenchmark-dev", "libeigen3-dev", "libtorch-dev", "libdnnl-dev", "libxnnpack-dev")
    installed = [line[2:].strip() for line in packages.splitlines() if line.startswith("ii")]
    if installed:
        rows.append(["packages", ", ".join(installed)])
    from_python = python or gpu
    if from_python and from_python["versions"]:
        rows.append(["from Python", ", ".join(f"{name} {version}" for name, version in from_python["versions"].items())])
    for recorded in (race, python, gpu):
        for missing in recorded["not_here"] if recorded else []:
            rows.append(["not here", f"{missing['name']}: `{missing['install']}`"])
    if not from_python:
        rows.append(["not here", "PyTorch 2, JAX and ONNX Runtime: `bash benchmarks/run.sh --with-python`"])
    return rows


# ---- the figures

COLOURS = {"sara": "#d1495b", "libtorch": "#30638e", "PyTorch": "#30638e", "naive": "#8d99ae", "oneDNN": "#00798c", "XNNPACK": "#edae49", "JAX": "#6a994e", "ONNX Runtime": "#7b2d8b"}
LINES = ["-", "--", ":", "-."]


def colour(library):
    return COLOURS.get(library, "#555555")


class Figures:
    def __init__(self, folder):
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob("*.svg"):
            old.unlink()
        plt.rcParams.update({"svg.hashsalt": "sara", "font.family": "DejaVu Sans", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
                             "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "figure.facecolor": "white"})

    def save(self, figure, name, says):
        figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.15)
        plt.close(figure)
        return f"![{says}]({self.folder.name}/{name}.svg)\n"

    def bars(self, heats, name="contestants", where=""):
        """The whole job: one panel a shape, the quickest on top."""
        panels = [h for h in heats if h["kind"] == "loss" and any(is_timed(c) for c in h["contestants"])]
        if not panels:
            return ""
        most = max(len(h["contestants"]) for h in panels)
        lines = (len(panels) + 1) // 2
        figure, axes = plt.subplots(lines, 2, figsize=(12.4, (0.8 + 0.2 * most) * lines), squeeze=False)
        for axis in axes.flat[len(panels):]:
            axis.set_visible(False)
        for axis, heat in zip(axes.flat, panels):
            ranked = sorted((c for c in heat["contestants"] if is_timed(c)), key=lambda c: -c["seconds"])
            rates = [heat["elements"] / c["seconds"] * 1e-9 for c in ranked]
            axis.barh(range(len(ranked)), rates, color=[colour(c["library"]) for c in ranked], height=0.7)
            axis.set_yticks(range(len(ranked)), [name_of(c) + ("" if "on_device" in heat else f", {c['threads']} thr.") for c in ranked], fontsize=7.5)
            for y, rate in enumerate(rates):
                axis.text(rate, y, f" {rate:.{2 if rate < 100 else 0}f}", va="center", fontsize=7.5)
            axis.set_xlabel("Gelem/s, more is better")
            axis.set_title(heat["title"], fontsize=9)
            axis.grid(axis="y", visible=False)
            axis.set_xlim(right=1.12 * max(rates))
        figure.tight_layout(w_pad=3)
        return self.save(figure, name, f"Throughput of every contestant for loss and gradient{where}")

    def sizes(self, heats):
        """Throughput against size under the roof: what a copy of as many bytes takes."""
        panels = sorted((h for h in heats if h["kind"] == "size"), key=lambda h: h["elements"])
        if len(panels) < 2:
            return ""
        figure, axis = plt.subplots(figsize=(7.6, 4.2))
        megabytes = [h["elements"] * 4e-6 for h in panels]
        roof = [h["elements"] / h["copy_seconds"] * 1e-9 for h in panels]
        axis.plot(megabytes, roof, color="black", linewidth=1.2, label="roof: a copy of the logits into the gradient")
        names = dict.fromkeys(name_of(c) for h in panels for c in h["contestants"])
        styles = {}
        for name in names:
            points = [(x, h["elements"] / c["seconds"] * 1e-9, c) for x, h in zip(megabytes, panels) for c in h["contestants"] if name_of(c) == name and is_timed(c)]
            if not points:
                continue
            library = points[0][2]["library"]
            style = LINES[styles.get(library, 0) % len(LINES)]
            styles[library] = styles.get(library, 0) + 1
            axis.plot([p[0] for p in points], [p[1] for p in points], color=colour(library), linestyle=style, marker="o", markersize=3.5, label=f"{name}, {points[0][2]['threads']} thr.")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("MB of fp32 logits (8 sequences, 128 experts)")
        axis.set_ylabel("Gelem/s")
        axis.set_title("Loss and gradient against size", fontsize=10)
        axis.legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
        return self.save(figure, "sizes", "Throughput against size, with the copy's as roof")

    def models(self, heats):
        panels = [h for h in heats if h["kind"] == "model" and any(is_timed(c) for c in h["contestants"])]
        if not panels:
            return ""
        names = list(dict.fromkeys(name_of(c) for h in panels for c in h["contestants"]))
        figure, axis = plt.subplots(figsize=(9, 0.9 + 0.17 * len(panels) * (len(names) + 1)))
        y, ticks, labelled = 0, [], set()
        for heat in reversed(panels):
            for name in reversed(names):
                c = next((c for c in heat["contestants"] if name_of(c) == name and is_timed(c)), None)
                if not c:
                    continue
                rate = heat["elements"] / c["seconds"] * 1e-9
                hatch = "" if c["library"] != "libtorch" else {"eager + autograd": "", "published expression + autograd": "...."}.get(c["how"], "////")
                axis.barh(y, rate, color=colour(c["library"]), hatch=hatch, edgecolor="white", height=0.8, label=None if name in labelled else f"{name}, {c['threads']} thr.")
                axis.text(rate, y, f" {rate:.2f}", va="center", fontsize=7)
                labelled.add(name)
                y += 1
            ticks.append((y - 1 - (sum(1 for c in heat["contestants"] if is_timed(c)) - 1) / 2, heat["name"]))
            y += 1
        axis.set_yticks([t[0] for t in ticks], [t[1] for t in ticks], fontsize=8)
        axis.set_xlabel("Gelem/s, more is better")
        axis.set_title("Loss and gradient of all layers in one call: layers x tokens x experts of published models", fontsize=9)
        axis.grid(axis="y", visible=False)
        handles, labels = axis.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: [f"{n}," in labels[i] for n in names].index(True) if any(f"{n}," in labels[i] for n in names) else 0)
        axis.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
        return self.save(figure, "models", "Throughput at the shapes of published models")

    def scaling(self, heats):
        panels = [h for h in heats if h["kind"] == "scaling" and sum(map(is_timed, h["contestants"])) > 1]
        if not panels:
            return ""
        columns = 2
        lines = math.ceil(len(panels) / columns)
        figure, axes = plt.subplots(lines, columns, figsize=(9.6, 2.7 * lines), squeeze=False)
        for axis in axes.flat[len(panels):]:
            axis.set_visible(False)
        for axis, heat in zip(axes.flat, panels):
            series = list(dict.fromkeys(c["how"] for c in heat["contestants"]))
            for i, how in enumerate(series):
                points = [(c["at"], c["seconds"] * 1e6) for c in heat["contestants"] if c["how"] == how and is_timed(c)]
                axis.plot(*zip(*points), marker="o", markersize=3.5, color=colour("sara") if i == 0 else colour("libtorch"), label=how or "measured")
            points = sorted((c["at"], c["seconds"] * 1e6) for c in heat["contestants"] if is_timed(c))
            at, value = points[len(points) // 2]
            law = {"proportional": lambda x: value * x / at, "constant": lambda x: value, "inverse": lambda x: points[0][1] / x * points[0][0], "what is left": lambda x: points[0][1] * (1 - x)}[heat["expected"]]
            axis.plot([p[0] for p in points], [law(p[0]) for p in points], color="black", linewidth=0.9, linestyle="--", label=f"expected: {heat['expected']}")
            if heat["expected"] == "proportional":
                axis.set_xscale("log", base=2)
                axis.set_yscale("log", base=2)
            elif heat["expected"] == "constant":
                axis.set_xscale("log", base=2)
                axis.set_ylim(bottom=0)
            else:
                axis.set_ylim(bottom=0)
            if heat["axis"] == "threads":
                axis.set_xticks([p[0] for p in points])
            axis.set_title(heat["title"], fontsize=8.5)
            axis.set_xlabel("fraction masked" if heat["axis"] == "masked" else "sequences" if heat["axis"] == "lengths" else heat["axis"])
            axis.set_ylabel("us a call")
            axis.legend(fontsize=7.5)
        figure.tight_layout(h_pad=1.5)
        return self.save(figure, "scaling", "Cost against tokens, experts, layers, sequences, threads, lengths and masks, with the expected line")

    def accuracy(self, heats):
        panels = [h for h in heats if h["kind"] == "accuracy"]
        if not panels:
            return ""
        figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.6))
        names = list(dict.fromkeys(name_of(c) for h in panels for c in h["contestants"]))
        for axis, key, title in zip(axes, ("error_value", "error_gradient"), ("Error of the loss, relative", "Error of the gradient, of its largest entry")):
            drawn = {}
            for name in names:
                points = [(h["distance"], max(c[key], 1e-12), c["library"]) for h in panels for c in h["contestants"] if name_of(c) == name and c.get(key) is not None]
                curve = tuple(p[1] for p in points)
                library = points[0][2]
                if (library, curve) in drawn:   # one expression in two ways
                    continue
                style = LINES[min(sum(1 for lib, _ in drawn if lib == library), 3)]
                drawn[library, curve] = name
                axis.plot([p[0] for p in points], curve, color=colour(library), linestyle=style, marker="o", markersize=3, label=name)
            axis.axhline(1, color="black", linewidth=0.7)
            axis.text(panels[0]["distance"], 1, "no digit is right above", ha="left", va="bottom", fontsize=7)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.invert_xaxis()
            axis.set_xlabel("relative distance of the anchor from the histogram")
            axis.set_title(title, fontsize=9)
        axes[1].legend(fontsize=7.5, loc="upper left", bbox_to_anchor=(1, 1))
        figure.tight_layout()
        return self.save(figure, "accuracy", "Errors of fp32 contestants as the anchor and the histogram approach each other")


def accuracy_table(heats):
    panels = [h for h in heats if h["kind"] == "accuracy"]
    if not panels:
        return ""
    names = list(dict.fromkeys(name_of(c) for h in panels for c in h["contestants"]))
    rows = []
    for name in names:
        cells = []
        for h in panels:
            c = next(c for c in h["contestants"] if name_of(c) == name)
            cells.append(f"{error(c.get('error_value'))} / {error(c.get('error_gradient'))}")
        rows.append([name] + cells)
    return table(["loss / gradient"] + [f"{h['distance']:.0e}" for h in panels], rows)


def scaling_table(heat):
    rows = [[(c["how"] + ", " if c["how"] else "") + f"{c['at']:g}", number(c["seconds"] * 1e6, 4) if is_timed(c) else c["status"], f"{c['kept']} of {c['turns']}"] for c in heat["contestants"]]
    return table([heat["axis"], "us", "turns kept"], rows)


# ---- all of it


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    parser.add_argument("--command", required=True)
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--failed", action="append", default=[])
    arguments = parser.parse_args()

    race, python, gpu = (read(arguments.parts / f"{name}.json") for name in ("race", "python", "gpu"))
    recorded = {name: read(arguments.parts / f"{name}.json") for name in PROGRAMS}
    benchmarks = {name: Benchmarks(recorded[name]) for name in PROGRAMS}
    compile_seconds = read(arguments.parts / "compile_seconds.json") or {}
    heats = (race["heats"] if race else []) + (python["heats"] if python else [])
    on_gpu = gpu["heats"] if gpu else []
    folder = arguments.output.parent
    rows = machine(arguments, race, python, gpu) + [["a translation unit with the fused loss", f"{s:.1f} s to compile, {c} -O2"] for c, s in compile_seconds.items()]
    figures = Figures(folder / "figures")   # from here on the working tree differs from its commit

    out = ["# Results\n"]
    if arguments.quick:
        out.append("From a quick run: figures are rough.\n")
    if arguments.failed:
        out.append(f"**A result was wrong, or a program failed: {', '.join(arguments.failed)}.**\n")
    out.append(table(["", ""], rows, 2) + "\n")
    out.append("""Every timed call's result was first held against the tests' naive double oracle: `error` is the largest difference by the largest entry,
and a contestant above 1e-4 is shown as wrong and not ranked. All inputs are fresh random numbers. Shapes are (layers x) sequences x tokens
x experts.""" + (""" In the race the contestants take turns in one process (benchmarks/race/heat.hpp says how): medians of the turns in which both
cores were there, or, where these were too few, of the third that came nearest to it.""" if heats else "") + "\n")
    if race or any(recorded.values()):
        out.append("## Targets\n\n" + targets(race, benchmarks) + "\n")
    if heats or on_gpu:
        out.append("## Where another is ahead\n\n" + ahead_text(heats + on_gpu) + "\n")
    if heats:
        out.append("## The race\n")
        out += [figures.bars(heats), figures.sizes(heats), figures.models(heats), figures.accuracy(heats)]
        out.append("Errors of the loss (relative) and of the gradient (of its largest entry), 8x256x128 in fp32, at a relative distance of the anchor from the histogram of:\n\n" + accuracy_table(heats) + "\n")
        out.append("How this library's cost grows. Above its line it is where a call is short (threads have to be woken) or a row (it fills few vectors), where logits and gradient outgrow the caches,\n"
                   "where sequences are so short that the divergence of each, some logarithms an expert, outweighs its tokens, and where tokens are masked: their gradient is\n"
                   "still written, as zeros.\n\n" + figures.scaling(heats))
        for heat in heats:
            if heat["kind"] in ("accuracy", "scaling"):
                continue
            out.append(heat_text(heat))
        for missing in race["not_raced"] if race else []:
            out.append(f"Not raced: {missing['name']}, which {missing['why']}.\n")
        for heat in heats:
            if heat["kind"] == "scaling":
                out.append(f"### {heat['title']}\n\n" + scaling_table(heat) + "\n")
    if on_gpu:
        out.append(f"""## On the GPU

Whole calls from Python on {gpu['device']}: times are the device's, between two events around many calls on one stream, JAX's by the host's clock;
the control that keeps a turn or drops it is a copy on the device. A replayed CUDA graph is compared with ours, all else with our plain call.
The gradient is of the storage of the logits; in bf16 a result is wrong above 1e-4 and 2^-8, and counts as nearer to the oracle by more than
a rounding of bf16, 2^-9.
""")
        out.append(figures.bars(on_gpu, "gpu", " on the GPU"))
        out += map(heat_text, on_gpu)
    if any(recorded.values()):
        out.append("""## The benchmarks

`Gelem/s` counts elements of logits; `GB/s` counts the bytes a call must move (each input read once, each output written once); `of copy` is
that rate by the quicker of an ordinary and a streaming copy of as many bytes on as many threads, measured just before each repetition. `spread` is the
standard deviation of the repetitions by their mean; `threads:2` runs on a pool, `spawned` without one. `step %`: what js_divergence takes
on as many rows, which is the step on [experts] between the two sweeps, by what the fused call takes.
""")
    for name in filter(recorded.get, PROGRAMS):
        out.append(f"### {name}\n\n" + benchmark_table(benchmarks[name]) + "\n")
    arguments.output.write_text("\n".join(text for text in out if text))
    everything = {"command": arguments.command.strip(), "machine": dict(r for r in rows if r[0] != "not here"), "race": race, "python": python, "gpu": gpu, "benchmarks": recorded}
    (folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
