#!/usr/bin/env python3
"""The race's contestants that live in Python: PyTorch 2, JAX and ONNX Runtime, beside this library in one process, turn by turn.

usage: python.py --shared libsara_race_shared.so --json FILE [--rounds N] [--seconds N] [--quick]

The rules are race/heat.hpp's, and so is what is written. A library that cannot be imported is told as not here. Needs numpy;
race/requirements.txt names the rest. Threads: two for all, by each library's own setting, and for XLA, which has none, by the processors
that the process may use.
"""

import argparse
import ctypes
import json
import math
import os
import sys
import time

RULES_WRONG = 1e-4  # an error above it is a wrong result
THREADS = 2
JOB = "loss and gradient"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", required=True, help="the shared object of race/shared.cpp")
    parser.add_argument("--json", required=True, help="where to write the results")
    parser.add_argument("--rounds", type=int, help="turns of each contestant in a heat, at most (default: 40; with --quick: 9)")
    parser.add_argument("--seconds", type=float, help="that a heat may take, roughly (default: 40; with --quick: 6)")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (9 if arguments.quick else 40)
    seconds = arguments.seconds or (6 if arguments.quick else 40)
    if rounds < 1 or seconds <= 0:
        parser.error("--rounds and --seconds must be positive")

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])  # before any library makes its threads
    race = Race(arguments.shared, rounds, seconds)
    shapes = [(1, 8, 1024, 128), (1, 8, 4096, 256), (48, 8, 512, 128)]
    for shape in shapes[: 1 if arguments.quick else 3]:
        race.loss(*shape)
    race.softmax(8192, 128)
    for experts, k in ((128, 8), (64, 6), (256, 8)):
        race.top_k(8192, experts, k)
    with open(arguments.json, "w") as file:
        json.dump(race.record, file, indent=1)
    return 0 if race.ours_was_right else 1


class Contestant:
    """run() leaves its result behind; check() holds it against the oracle: (error of the value, of the gradient), None for what it has not."""

    def __init__(self, library, job, how, run, check):
        self.library, self.job, self.how, self.run, self.check = library, job, how, run, check
        self.times, self.detail, self.errors, self.status = [], "", (None, None), "ok"


def largest_error(got, want):
    difference = np.abs(np.asarray(got, dtype=np.float64).ravel() - want.ravel()).max()
    size = np.abs(want).max()
    return math.inf if math.isnan(difference) else float(difference / size if size else difference)


def quantile(values, part):
    return sorted(values)[int(part * (len(values) - 1) + 0.5)]


class Race:
    def __init__(self, shared, rounds, seconds):
        self.rounds, self.seconds, self.ours_was_right = rounds, seconds, True
        self.record = {"program": "python", "versions": {}, "not_here": [], "heats": []}
        self.c = ctypes.CDLL(os.path.abspath(shared))
        self.c.race_control.restype = self.c.race_copy_bandwidth.restype = ctypes.c_double
        self.c.race_instruction_set.restype = ctypes.c_char_p
        self.controls = []
        self.torch, self.jax, self.onnxruntime, self.onnx = (self.import_or_tell(*names) for names in (
            ("torch", "PyTorch", "torch"), ("jax", "JAX", "jax"), ("onnxruntime", "ONNX Runtime", "onnxruntime onnx"), ("onnx", "ONNX", "onnx")))
        if self.torch:
            self.torch.set_num_threads(THREADS)

    def import_or_tell(self, module, name, packages):
        try:
            found = __import__(module)
            self.record["versions"][name] = found.__version__
            return found
        except ImportError as error:
            print(f"python.py: {name} is not here: {error}", file=sys.stderr)
            self.record["not_here"].append({"name": name, "install": f"pip install {packages}"})
            return None

    # ---- how a heat is run

    def control(self):
        self.controls.append(self.c.race_control())
        return self.controls[-1]

    def take_turn(self, contestant):
        self.c.race_part_threads()
        time.sleep(0.015)
        before = self.control()
        contestant.run()
        runs, begin = 0, time.perf_counter()
        while True:
            contestant.run()
            runs += 1
            seconds = time.perf_counter() - begin
            if seconds >= 0.01:
                break
        self.c.race_part_threads()
        time.sleep(0.015)
        contestant.times.append((seconds / runs, max(before, self.control())))

    def kept(self, contestant):
        limit = 1.15 * quantile(self.controls, 0.1)
        return [seconds for seconds, control in contestant.times if control <= limit]

    def run(self, heat, contestants):
        print(heat["title"], file=sys.stderr)
        self.c.race_let_caller_roam()
        of_round = 0
        for c in contestants:
            try:
                c.run()  # compiles, where there is a compiler
                begin = time.perf_counter()
                c.run()
                of_round += 2 * max(0.01, time.perf_counter() - begin) + 0.05
                c.errors = c.check()
            except Exception as error:  # the others go on
                c.status, c.detail = "failed", f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0][:120] if str(error).strip() else ''}"
                print(f"python.py: {c.library}, {c.how}: {c.detail}", file=sys.stderr)
                continue
            if any(e is not None and not e <= RULES_WRONG for e in c.errors):
                c.status = "wrong"
                self.ours_was_right &= c.library != "sara"
        racing = [c for c in contestants if c.status == "ok"]
        rounds = max(min(5, self.rounds), min(self.rounds, int(self.seconds / of_round)))
        begin, done = time.perf_counter(), 0
        while done < rounds or (done < 3 * rounds and time.perf_counter() - begin < 2 * self.seconds and any(3 * len(self.kept(c)) < rounds for c in racing)):
            for i in range(len(racing)):
                self.take_turn(racing[(i + done) % len(racing)])
            done += 1
        heat["rounds"], heat["contestants"] = rounds, []
        for c in contestants:
            kept = self.kept(c) if self.controls else []
            if c.status == "ok" and not kept:
                c.status = "no quiet turn"
            one = {"library": c.library, "job": c.job, "how": c.how, "threads": THREADS, "at": 0, "status": c.status, "turns": len(c.times), "kept": len(kept)}
            if c.detail:
                one["detail"] = c.detail
            if kept:
                one["seconds"], one["quartiles"] = quantile(kept, 0.5), [quantile(kept, 0.25), quantile(kept, 0.75)]
            for key, error in zip(("error_value", "error_gradient"), c.errors):
                if error is not None:
                    one[key] = min(error, 1e300)
            heat["contestants"].append(one)
        self.record["heats"].append(heat)

    # ---- the whole job: logits [layers, sequences, length, experts], anchors [layers, sequences, experts]

    def loss(self, layers, sequences, length, experts):
        shape, bytes_moved = (layers, sequences, length, experts), 8 * layers * sequences * length * experts
        random = np.random.default_rng(layers * length + experts)
        logits = random.normal(0, 2, shape).astype(np.float32)
        anchors = np.exp(random.normal(0, 2, (layers, sequences, experts)))
        anchors = (anchors / anchors.sum(-1, keepdims=True)).astype(np.float32)
        want_loss, want_gradient = ctypes.c_double(), np.empty(shape)
        sizes = [ctypes.c_int64(n) for n in shape]
        self.c.race_oracle(pointer(logits), pointer(anchors), *sizes, ctypes.byref(want_loss), pointer(want_gradient))
        want_loss = np.array([want_loss.value])

        def checked(result):  # () -> (loss, gradient)
            def check():
                loss, gradient = result()
                return largest_error(loss, want_loss), largest_error(gradient, want_gradient)

            return check

        ours_loss, ours_gradient = np.ones(1, np.float32), np.ones(shape, np.float32)
        contestants = [Contestant("sara", JOB, self.c.race_instruction_set().decode(),
                                  lambda: self.c.race_loss(pointer(logits), pointer(anchors), *sizes, pointer(ours_loss), pointer(ours_gradient)),
                                  checked(lambda: (ours_loss, ours_gradient)))]
        if self.torch:
            contestants += self.pytorch_contestants(logits, anchors, checked)
        if self.jax:
            contestants.append(self.jax_contestant(logits, anchors, checked))
        if self.onnxruntime and self.onnx:
            contestants.append(self.onnx_contestant(logits, anchors, checked))
        name = f"{sequences}x{length}x{experts}" if layers == 1 else f"{layers}x{sequences}x{length}x{experts}"
        elements = layers * sequences * length * experts
        self.run({"kind": "loss", "name": name + ", from Python", "title": f"Loss and gradient, fp32, {name}, {elements * 4e-6:.3g} MB of logits, from Python",
                  "elements": elements, "unit": "Gelem/s", "bytes": bytes_moved,
                  "copy_seconds": bytes_moved / self.c.race_copy_bandwidth(ctypes.c_size_t(bytes_moved))}, contestants)

    def pytorch_contestants(self, logits, anchors, checked):
        torch = self.torch
        anchors = torch.from_numpy(anchors)
        units, length = logits.shape[0] * logits.shape[1], logits.shape[2]

        def definition(z):
            q = z.softmax(-1).mean(2)
            m = 0.5 * (q + anchors)
            return (0.5 * ((anchors * (anchors.log() - m.log())).sum(-1) + (q * (q.log() - m.log())).sum(-1))).mean()

        mask = torch.ones(logits.shape[1], length)

        def published(*layers):
            of = mask.unsqueeze(-1)
            q = ((torch.stack(layers).softmax(-1) * of).sum(2) / of.sum(1).clamp_min(1)).clamp_min(1e-8)
            a = anchors.clamp_min(1e-8)
            m = 0.5 * (q + a)
            return (0.5 * (a * (a.log() - m.log())).sum(-1) + 0.5 * (q * (q.log() - m.log())).sum(-1)).mean(-1).mean()

        def by_hand(z):
            p = z.softmax(-1)
            q = p.mean(2)
            m = 0.5 * (q + anchors)
            log_q = (q / m).log()
            loss = (anchors * (anchors / m).log() + q * log_q).sum() * (0.5 / units)
            weighted = p * (log_q * (0.5 / (units * length))).unsqueeze(2)
            return loss, weighted - p * weighted.sum(-1, keepdim=True)

        def autograd(how, function, leaves):
            left = {}

            def run():
                for leaf in leaves:
                    leaf.grad = None
                loss = function(*leaves)
                loss.backward()
                left["loss"] = loss.detach()

            return Contestant("PyTorch", JOB, how, run, checked(lambda: (left["loss"].numpy(), np.stack([leaf.grad.numpy() for leaf in leaves]))))

        def without(how, function):
            z, left = torch.from_numpy(logits), {}

            def run():
                with torch.no_grad():
                    left["loss"], left["gradient"] = function(z)

            return Contestant("PyTorch", JOB, how, run, checked(lambda: (left["loss"].numpy(), left["gradient"].numpy())))

        whole = lambda: [torch.from_numpy(logits).clone().requires_grad_(True)]
        layers = lambda: [torch.from_numpy(layer).clone().requires_grad_(True) for layer in logits]
        return [
            autograd("eager + autograd", definition, whole()),
            autograd("torch.compile + autograd", torch.compile(definition), whole()),
            without("hand-written gradient, eager", by_hand),
            without("hand-written gradient, torch.compile", torch.compile(by_hand)),
            autograd("published expression + autograd, eager", published, layers()),
            autograd("published expression + autograd, torch.compile", torch.compile(published), layers()),
        ]

    def jax_contestant(self, logits, anchors, checked):
        jax, left = self.jax, {}
        numpy = jax.numpy
        z, a = jax.device_put(logits), jax.device_put(anchors)

        def definition(z, a):
            q = jax.nn.softmax(z, -1).mean(2)
            m = 0.5 * (q + a)
            return (0.5 * ((a * (numpy.log(a) - numpy.log(m))).sum(-1) + (q * (numpy.log(q) - numpy.log(m))).sum(-1))).mean()

        function = jax.jit(jax.value_and_grad(definition))

        def run():
            left["result"] = jax.block_until_ready(function(z, a))

        return Contestant("JAX", JOB, "jit of value_and_grad", run, checked(lambda: left["result"]))

    def onnx_contestant(self, logits, anchors, checked):
        units, length = logits.shape[0] * logits.shape[1], logits.shape[2]
        graph = Graph(self.onnx)
        z, a = graph.input("logits", logits.shape), graph.input("anchors", (*anchors.shape[:2], 1, anchors.shape[2]))
        p = graph.node("Softmax", [z], axis=-1)
        q = graph.node("ReduceMean", [p], axes=[2], keepdims=1)
        m = graph.node("Mul", [graph.node("Add", [q, a]), graph.constant(0.5)])
        log_q, log_p = (graph.node("Log", [graph.node("Div", [x, m])]) for x in (q, a))
        both = graph.node("Add", [graph.node("Mul", [a, log_p]), graph.node("Mul", [q, log_q])])
        graph.output(graph.node("Mul", [graph.node("ReduceSum", [both], keepdims=0), graph.constant(0.5 / units)]), "loss", ())
        weighted = graph.node("Mul", [p, graph.node("Mul", [log_q, graph.constant(0.5 / (units * length))])])
        mean = graph.node("ReduceSum", [weighted, graph.constant([-1], integer=True)], keepdims=1)
        graph.output(graph.node("Sub", [weighted, graph.node("Mul", [p, mean])]), "gradient", logits.shape)
        session = graph.session(self.onnxruntime)
        outputs = session.bind({"logits": logits, "anchors": anchors.reshape(*anchors.shape[:2], 1, -1)}, {"loss": (), "gradient": logits.shape})
        return Contestant("ONNX Runtime", JOB, "analytic graph", session.run, checked(lambda: (outputs["loss"].numpy(), outputs["gradient"].numpy())))

    # ---- the pieces

    def softmax(self, rows, experts):
        random = np.random.default_rng(7)
        logits, slopes = (random.normal(0, 2, (rows, experts)).astype(np.float32) for _ in range(2))
        want = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
        want /= want.sum(-1, keepdims=True)
        want_gradient = want * (slopes - (want * slopes).sum(-1, keepdims=True))
        given = want.astype(np.float32)
        ours, ours_gradient = np.ones_like(logits), np.ones_like(logits)
        sizes = ctypes.c_int64(rows), ctypes.c_int64(experts)
        value = lambda result: lambda: (largest_error(result(), want), None)
        gradient = lambda result: lambda: (None, largest_error(result(), want_gradient))
        contestants = [
            Contestant("sara", "softmax", "gate_softmax", lambda: self.c.race_softmax(pointer(logits), *sizes, pointer(ours)), value(lambda: ours)),
            Contestant("sara", "softmax backward", "gate_softmax_backward",
                       lambda: self.c.race_softmax_backward(pointer(given), pointer(slopes), *sizes, pointer(ours_gradient)), gradient(lambda: ours_gradient)),
        ]
        left = {}
        if self.torch:
            torch = self.torch
            z, p, g = (torch.from_numpy(x) for x in (logits, given, slopes))
            to, to_gradient = torch.empty_like(z), torch.empty_like(z)
            contestants += [
                Contestant("PyTorch", "softmax", "softmax into kept memory", lambda: torch.softmax(z, -1, out=to), value(lambda: to.numpy())),
                Contestant("PyTorch", "softmax backward", "_softmax_backward_data",
                           lambda: torch._softmax_backward_data(g, p, -1, torch.float32, grad_input=to_gradient), gradient(lambda: to_gradient.numpy())),
            ]
        if self.jax:
            jax = self.jax
            function, on_device = jax.jit(lambda x: jax.nn.softmax(x, -1)), jax.device_put(logits)
            contestants.append(Contestant("JAX", "softmax", "jit of nn.softmax", lambda: left.update(jax=jax.block_until_ready(function(on_device))), value(lambda: left["jax"])))
        if self.onnxruntime and self.onnx:
            graph = Graph(self.onnx)
            graph.output(graph.node("Softmax", [graph.input("logits", logits.shape)], axis=-1), "probs", logits.shape)
            session = graph.session(self.onnxruntime)
            outputs = session.bind({"logits": logits}, {"probs": logits.shape})
            contestants.append(Contestant("ONNX Runtime", "softmax", "Softmax", session.run, value(lambda: outputs["probs"].numpy())))
        self.run({"kind": "softmax", "name": f"{rows}x{experts}, from Python", "title": f"Softmax alone and its backward, fp32, {rows} x {experts}, from Python",
                  "elements": rows * experts, "unit": "Gelem/s"}, contestants)

    def top_k(self, rows, experts, k):
        scores = np.random.default_rng(8).normal(0, 2, (rows, experts)).astype(np.float32)
        want = -np.sort(-scores.astype(np.float64), -1)[:, :k]
        indices, weights = np.zeros((rows, k), np.int32), np.ones((rows, k), np.float32)
        sizes = [ctypes.c_int64(n) for n in (rows, experts, k)]
        check = lambda values, chosen: lambda: (largest_error(np.take_along_axis(scores, np.asarray(chosen()).astype(np.int64), -1), want) + largest_error(values(), want), None)
        contestants = [Contestant("sara", "top-k", "top_k", lambda: self.c.race_top_k(pointer(scores), *sizes, pointer(indices), pointer(weights)),
                                  check(lambda: weights, lambda: indices))]
        left = {}
        if self.torch:
            z = self.torch.from_numpy(scores)
            contestants.append(Contestant("PyTorch", "top-k", "topk", lambda: left.update(torch=self.torch.topk(z, k)),
                                          check(lambda: left["torch"][0].numpy(), lambda: left["torch"][1].numpy())))
        if self.jax:
            function, on_device = self.jax.jit(lambda x: self.jax.lax.top_k(x, k)), self.jax.device_put(scores)
            contestants.append(Contestant("JAX", "top-k", "jit of lax.top_k", lambda: left.update(jax=self.jax.block_until_ready(function(on_device))),
                                          check(lambda: left["jax"][0], lambda: left["jax"][1])))
        if self.onnxruntime and self.onnx:
            graph = Graph(self.onnx)
            values, chosen = graph.node("TopK", [graph.input("scores", scores.shape), graph.constant([k], integer=True)], outputs=2, axis=-1)
            graph.output(values, "values", (rows, k))
            graph.output(chosen, "indices", (rows, k), integer=True)
            session = graph.session(self.onnxruntime)
            outputs = session.bind({"scores": scores}, {"values": (rows, k), "indices": (rows, k)}, integers={"indices"})
            contestants.append(Contestant("ONNX Runtime", "top-k", "TopK", session.run, check(lambda: outputs["values"].numpy(), lambda: outputs["indices"].numpy())))
        self.run({"kind": "top_k", "name": f"{k} of {experts}, from Python", "title": f"Top-k, {k} of {experts}, {rows} tokens, fp32, from Python", "elements": rows, "unit": "Mtoken/s"}, contestants)


class Graph:
    """An ONNX graph as it is written down, and a session on it whose inputs and outputs stay in place."""

    def __init__(self, onnx):
        self.onnx, self.nodes, self.inputs, self.outputs, self.constants = onnx, [], [], [], []

    def input(self, name, shape):
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape))
        return name

    def constant(self, value, integer=False):
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(np.array(value, np.int64 if integer else np.float32), name))
        return name

    def node(self, kind, inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def output(self, made, name, shape, integer=False):
        self.nodes.append(self.onnx.helper.make_node("Identity", [made], [name]))
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.INT64 if integer else self.onnx.TensorProto.FLOAT, shape))

    def session(self, onnxruntime):
        made = self.onnx.helper.make_graph(self.nodes, "race", self.inputs, self.outputs, self.constants)
        model = self.onnx.helper.make_model(made, opset_imports=[self.onnx.helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
        return Session(onnxruntime, onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]))


class Session:
    def __init__(self, onnxruntime, session):
        self.onnxruntime, self.session = onnxruntime, session

    def bind(self, inputs, outputs, integers=()):
        self.binding = self.session.io_binding()
        value = self.onnxruntime.OrtValue.ortvalue_from_numpy
        held = {name: value(array) for name, array in inputs.items()}
        made = {name: value(np.zeros(shape, np.int64 if name in integers else np.float32)) for name, shape in outputs.items()}
        for name, each in held.items():
            self.binding.bind_ortvalue_input(name, each)
        for name, each in made.items():
            self.binding.bind_ortvalue_output(name, each)
        self.held = held
        return made

    def run(self):
        self.session.run_with_iobinding(self.binding)


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


if __name__ == "__main__":
    try:
        import numpy as np
    except ImportError:
        sys.exit("python.py: needs numpy (pip install numpy)")
    sys.exit(main())
