#!/usr/bin/env python3
"""The race's contestants that live in Python: PyTorch 2, JAX and ONNX Runtime, beside this library in one process, turn by turn.

The rules are race/heat.hpp's, and so is what is written. A library that cannot be imported is told as not here. Needs numpy;
race/requirements.txt names the rest. Threads: as many for all, by each library's own setting (XLA's is NPROC), on as many processors. What
is compiled is compiled before anything is timed, and how long that takes is told apart. Exit status: 1 if this library's own result is
wrong, 2 if the arguments are, 77 if there is no GPU for --device cuda.
"""

import argparse
import ctypes
import functools
import gc
import json
import math
import os
import sys
import tempfile
import time

try:
    import numpy as np
except ImportError:
    sys.exit("python.py: needs numpy (pip install numpy)")

WRONG = 1e-4  # an error above it is a wrong result
JOB = "loss and gradient"


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"python.py: {message} (see --help)\n")


def at_least(least, kind):
    def parse(text):
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be at least {least}, but is {text}")
        return value

    parse.__name__ = "number" if kind is float else "whole number"
    return parse


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--shared", required=True, metavar="FILE", help="the shared object of race/shared.cpp (target sara_race_shared)")
    parser.add_argument("--shared-cuda", metavar="FILE", help="that of race/shared.cu (target sara_race_shared_cuda), for --device cuda")
    parser.add_argument("--json", required=True, metavar="FILE", help="where to write the results")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to race (default: cpu)")
    parser.add_argument("--threads", type=at_least(1, int), default=2, metavar="N", help="of every contestant (default: 2)")
    parser.add_argument("--rounds", type=at_least(1, int), metavar="N", help="turns of each contestant in a heat, at most (default: 40; with --quick: 9)")
    parser.add_argument("--seconds", type=at_least(0.001, float), metavar="N", help="that a heat may take, roughly (default: 20; with --quick: 3)")
    parser.add_argument("--quick", action="store_true", help="fewer heats and rounds")
    arguments = parser.parse_args()
    limits = arguments.rounds or (9 if arguments.quick else 40), arguments.seconds or (3 if arguments.quick else 20)
    try:
        open(arguments.json, "a").close()
        shared = [ctypes.CDLL(os.path.abspath(file)) for file in (arguments.shared, arguments.shared_cuda) if file]
    except OSError as error:
        parser.error(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    if arguments.device == "cpu" and arguments.shared_cuda:
        parser.error("--shared-cuda is for --device cuda")

    # Before any library is there to make threads or to read its settings.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    os.environ["NPROC"] = str(arguments.threads)
    if arguments.device == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # JAX would take most of a GPU's memory
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process: no others that may be busy beside the race
    gc.disable()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # an empty one, or what compiling takes would not be known
        if arguments.device == "cpu":
            race = Race(shared[0], arguments.threads, *limits)
            shapes = [(1, 8, 1024, 128), (1, 8, 4096, 256), (48, 8, 512, 128)]
            for shape in shapes[: 1 if arguments.quick else 3]:
                race.loss(*shape)
            for rows, experts in ((8192, 128), (32768, 256))[: 1 if arguments.quick else 2]:
                race.softmax(rows, experts)
            for experts, k in ((128, 8), (64, 6), (256, 8)):
                race.top_k(8192, experts, k)
        else:
            race = CudaRace(shared[0], arguments.threads, *limits)
            if not (race.torch and race.torch.cuda.is_available()):
                print("python.py: --device cuda needs an NVIDIA GPU that PyTorch can use, and there is none", file=sys.stderr)
                return 77
            race.start(shared[1:])
            race.loss_on_device(48, 16, 512, 128, "fp32")
            # Qwen3-30B-A3B's routers, Phi-3.5-MoE's, DeepSeek-V3's, Kimi-K2's, Qwen1.5-MoE's.
            for shape in ((48, 16, 512, 128), (32, 8, 1024, 16), (58, 4, 1024, 256), (60, 4, 1024, 384), (24, 8, 1024, 60))[: 1 if arguments.quick else 5]:
                race.loss_on_device(*shape, "bf16")
    with open(arguments.json, "w") as file:
        json.dump(race.record, file, indent=1)
    return 0 if race.ours_was_right else 1


class Contestant:
    """run() leaves its result behind; check() holds it against the oracle: (error of the value, of the gradient), None for what it has not.

    `flags` are the settings that matter. The caller's thread works along in a contestant that does not roam, and keeps a processor to itself;
    one that roams works in other threads alone, and these may use every processor.
    """

    def __init__(self, library, job, how, run, check, flags="", compiles=False, roams=False, limit=WRONG, waits=None):
        self.library, self.job, self.how, self.run, self.check, self.flags = library, job, how, run, check, flags
        self.compiles, self.roams, self.limit, self.waits = compiles, roams, limit, waits
        self.times, self.detail, self.errors, self.status, self.compile_seconds = [], "", (None, None), "ok", None

    def fail(self, error):
        lines = str(error).strip().splitlines() or [""]
        self.status, self.detail = "failed", f"failed: {type(error).__name__}: {lines[0][:120]}".replace("|", "/")  # it may stand in a table
        print(f"python.py: {self.library}, {self.how}: {self.detail}", file=sys.stderr)
        return self


def largest_error(got, want):
    difference = np.abs(np.asarray(got, dtype=np.float64).ravel() - want.ravel()).max()
    size = np.abs(want).max()
    return math.inf if math.isnan(difference) else float(difference / size if size else difference)


def quantile(values, part):
    return sorted(values)[int(part * (len(values) - 1) + 0.5)]


def let_all_roam(processors):
    """Every thread of this process, on every processor that it may use."""
    for thread in os.listdir("/proc/self/task"):
        try:
            os.sched_setaffinity(int(thread), processors)
        except OSError:  # it has ended
            pass


def aligned(array):
    """A copy that begins at a cache line, as tensor libraries' own memory does: vectors then start alike for all contestants."""
    array = np.ascontiguousarray(array)
    room = np.empty(array.nbytes + 64, np.uint8)
    copy = room[-room.ctypes.data % 64 :][: array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def ones(shape, kind=np.float32):
    return aligned(np.ones(shape, kind))


class Race:
    def __init__(self, shared, threads, rounds, seconds):
        self.threads, self.rounds, self.seconds, self.ours_was_right = threads, rounds, seconds, True
        self.record = {"program": "python", "threads": threads, "processors": len(os.sched_getaffinity(0)), "versions": {}, "not_here": [], "heats": []}
        self.c = shared
        self.c.race_control.restype = self.c.race_copy_bandwidth.restype = ctypes.c_double
        self.c.race_instruction_set.restype = ctypes.c_char_p
        self.c.race_set_threads(threads)
        self.controls, self.processors = [], os.sched_getaffinity(0)
        self.torch, self.jax, self.onnxruntime, self.onnx = (self.import_or_tell(*names) for names in (
            ("torch", "PyTorch", "torch"), ("jax", "JAX", "jax"), ("onnxruntime", "ONNX Runtime", "onnxruntime onnx"), ("onnx", "ONNX", "onnx")))
        if self.torch:
            self.torch.set_num_threads(threads)

    def import_or_tell(self, module, name, packages):
        try:
            found = __import__(module)
            self.record["versions"][name] = found.__version__
            return found
        except Exception as error:  # a library that is broken is not here either
            print(f"python.py: {name} is not here: {error}", file=sys.stderr)
            self.record["not_here"].append({"name": name, "install": f"pip install {packages}"})
            return None

    # ---- how a heat is run

    def control(self):
        self.controls.append(self.c.race_control())
        return self.controls[-1]

    def prepare(self):
        self.c.race_let_caller_roam()  # so that a library's threads start as they would

    def wait(self, contestant):
        """Until what run() began is done."""

    def take_turn(self, contestant):
        self.c.race_part_threads()
        time.sleep(0.015)
        before = self.control()
        if contestant.roams:
            let_all_roam(self.processors)
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

    def quiet(self, contestant):
        limit = 1.15 * quantile(self.controls, 0.1)
        return [seconds for seconds, control in contestant.times if control <= limit]

    def kept(self, contestant):
        quiet = self.quiet(contestant)
        if 3 * len(quiet) >= len(contestant.times):
            return quiet
        best = sorted(contestant.times, key=lambda turn: turn[1])  # too few: the better third, by their controls
        return [seconds for seconds, _ in best[: (len(best) + 2) // 3]]

    def made(self, library, job, make, how=""):
        """What make() returns, or in its place one contestant that has failed: the others go on."""
        try:
            return make()
        except Exception as error:
            return [Contestant(library, job, how, None, None).fail(error)]

    def once(self, contestant):
        begin = time.perf_counter()
        contestant.run()
        self.wait(contestant)
        return time.perf_counter() - begin

    def run(self, heat, contestants):
        print(heat["title"], file=sys.stderr)
        gc.collect()
        self.prepare()
        of_round = 0
        for c in contestants:
            if c.status == "failed":
                continue
            try:
                first, second = self.once(c), self.once(c)  # the first compiles, where there is a compiler
                c.compile_seconds = max(0.0, first - second) if c.compiles else None
                of_round += 2 * max(0.01, second) + 0.05
                c.errors = c.check()
            except Exception as error:
                c.fail(error)
                continue
            if any(e is not None and not e <= limit for e, limit in zip(c.errors, (WRONG, c.limit))):
                c.status = "wrong"
        self.ours_was_right &= all(c.status == "ok" for c in contestants if c.library == "sara")
        racing = [c for c in contestants if c.status == "ok"]
        rounds = max(min(5, self.rounds), min(self.rounds, int(self.seconds / max(of_round, 0.01))))
        begin, done = time.perf_counter(), 0
        while done < rounds or (done < 3 * rounds and time.perf_counter() - begin < 2 * self.seconds and any(3 * len(self.quiet(c)) < rounds for c in racing)):
            for i in range(len(racing)):
                self.take_turn(racing[(i + done) % len(racing)])
            done += 1
        heat["rounds"], heat["contestants"] = rounds, []
        for c in contestants:
            kept = self.kept(c) if self.controls else []
            if c.status == "ok" and not kept:
                c.status = "no quiet turn"
            one = {"library": c.library, "job": c.job, "how": c.how, "threads": self.threads, "at": 0, "status": c.status, "turns": len(c.times), "kept": len(kept)}
            if kept:
                one["seconds"], one["quartiles"] = quantile(kept, 0.5), [quantile(kept, 0.25), quantile(kept, 0.75)]
            for key, value in (("detail", c.detail), ("flags", c.flags), ("compile_seconds", c.compile_seconds)):
                if value:
                    one[key] = value
            for key, error in zip(("error_value", "error_gradient"), c.errors):
                if error is not None:
                    one[key] = min(error, 1e300) if not math.isnan(error) else 1e300
            heat["contestants"].append(one)
            told = f"{one['seconds'] * 1e6:.0f} us" if kept else c.status
            compiled = f", compiled in {c.compile_seconds:.1f} s" if (c.compile_seconds or 0) >= 0.05 else ""
            print(f"  {c.job}: {c.library}, {c.how}: {told}, {len(kept)} of {len(c.times)} turns kept{compiled}", file=sys.stderr)
        self.record["heats"].append(heat)

    # ---- the whole job: logits [layers, sequences, length, experts], anchors [layers, sequences, experts]

    def loss(self, layers, sequences, length, experts):
        shape, bytes_moved = (layers, sequences, length, experts), 8 * layers * sequences * length * experts
        logits, anchors = self.batch(shape)
        checked = self.oracle(logits, anchors)
        ours_loss, ours_gradient = ones(1), ones(shape)
        run = functools.partial(self.c.race_loss, pointer(logits), pointer(anchors), *map(ctypes.c_int64, shape), pointer(ours_loss), pointer(ours_gradient))
        contestants = [Contestant("sara", JOB, self.c.race_instruction_set().decode(), run, checked(lambda: (ours_loss, ours_gradient)))]
        if self.torch:
            contestants += self.made("PyTorch", JOB, lambda: self.pytorch_contestants(logits, anchors, checked))
        if self.jax:
            contestants += self.made("JAX", JOB, lambda: self.jax_contestants(logits, anchors, checked))
        if self.onnxruntime and self.onnx:
            contestants += self.made("ONNX Runtime", JOB, lambda: self.onnx_contestants(logits, anchors, checked))
        name = f"{sequences}x{length}x{experts}" if layers == 1 else f"{layers}x{sequences}x{length}x{experts}"
        elements = layers * sequences * length * experts
        self.run({"kind": "loss", "name": name + ", from Python", "title": f"Loss and gradient, fp32, {name}, {elements * 4e-6:.3g} MB of logits, from Python",
                  "elements": elements, "unit": "Gelem/s", "bytes": bytes_moved,
                  "copy_seconds": bytes_moved / self.c.race_copy_bandwidth(ctypes.c_size_t(bytes_moved))}, contestants)

    def batch(self, shape):
        layers, sequences, length, experts = shape
        random = np.random.default_rng(layers * length + experts)
        logits = random.standard_normal(shape, dtype=np.float32) * np.float32(2)
        anchors = np.exp(random.normal(0, 2, (layers, sequences, experts)))
        return aligned(logits), aligned((anchors / anchors.sum(-1, keepdims=True)).astype(np.float32))

    def oracle(self, logits, anchors):
        """Makes a contestant's check of what returns its loss and its gradient."""
        want_loss, want_gradient = ctypes.c_double(), np.empty(logits.shape)
        self.c.race_oracle(pointer(logits), pointer(anchors), *map(ctypes.c_int64, logits.shape), ctypes.byref(want_loss), pointer(want_gradient))
        want_loss = np.array([want_loss.value])

        def checked(result):
            def check():
                loss, gradient = result()
                return largest_error(loss, want_loss), largest_error(gradient, want_gradient)

            return check

        return checked

    def compiled(self, function):
        # For these shapes alone: the second one that a function sees would otherwise be compiled for all.
        return self.torch.compile(function, dynamic=False)

    def definition(self, anchors):
        def loss(z):
            q = z.softmax(-1, dtype=anchors.dtype).mean(2)
            m = 0.5 * (q + anchors)
            return (0.5 * ((anchors * (anchors.log() - m.log())).sum(-1) + (q * (q.log() - m.log())).sum(-1))).mean()

        return loss

    def autograd(self, how, function, leaves, checked, **about):
        left = {}

        def run():
            for leaf in leaves:
                leaf.grad = None
            loss = function(*leaves)
            loss.backward()
            left["loss"] = loss.detach()

        def result():
            gradients = [leaf.grad.float().cpu().numpy() for leaf in leaves]
            return left["loss"].cpu().numpy(), gradients[0] if len(gradients) == 1 else np.stack(gradients)

        return Contestant("PyTorch", JOB, how, run, checked(result), **about)

    def pytorch_contestants(self, logits, anchors, checked):
        torch = self.torch
        torch._dynamo.reset()  # a function that has been compiled too often is run as it is, and nothing says so
        anchors = torch.from_numpy(anchors)
        units, length = logits.shape[0] * logits.shape[1], logits.shape[2]
        mask = torch.ones(logits.shape[1], length)
        inductor = {"flags": "inductor, dynamic=False", "compiles": True}

        # As the method's published training code has it: layers stacked, softmax, attention mask, masked mean, both distributions
        # clamped, Jensen-Shannon as two Kullback-Leibler divergences, a mean over sequences and layers.
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

        def without(how, function, **about):
            z, left = torch.from_numpy(logits), {}

            def run():
                with torch.no_grad():
                    left["loss"], left["gradient"] = function(z)

            return Contestant("PyTorch", JOB, how, run, checked(lambda: (left["loss"].numpy(), left["gradient"].numpy())), **about)

        whole = lambda: [torch.from_numpy(logits).clone().requires_grad_(True)]
        layers = lambda: [torch.from_numpy(layer).clone().requires_grad_(True) for layer in logits]
        return [
            self.autograd("eager + autograd", self.definition(anchors), whole(), checked),
            self.autograd("torch.compile + autograd", self.compiled(self.definition(anchors)), whole(), checked, **inductor),
            without("hand-written gradient, eager", by_hand),
            without("hand-written gradient, torch.compile", self.compiled(by_hand), **inductor),
            self.autograd("published expression + autograd, eager", published, layers(), checked),
            self.autograd("published expression + autograd, torch.compile", self.compiled(published), layers(), checked, **inductor),
        ]

    def jax_contestants(self, logits, anchors, checked, **about):
        jax, left = self.jax, {}
        numpy = jax.numpy
        # One axis for layers and sequences: with an axis of 1, for one layer, XLA's code takes four times as long on a CPU.
        z, a = jax.device_put(logits.reshape(-1, *logits.shape[2:])), jax.device_put(anchors.reshape(-1, anchors.shape[-1]))

        def definition(z, a):
            q = jax.nn.softmax(z.astype(a.dtype), -1).mean(1)
            m = 0.5 * (q + a)
            return (0.5 * ((a * (numpy.log(a) - numpy.log(m))).sum(-1) + (q * (numpy.log(q) - numpy.log(m))).sum(-1))).mean()

        function = jax.jit(jax.value_and_grad(definition))

        def run():
            left["result"] = function(z, a)

        def wait():
            jax.block_until_ready(left["result"])

        def run_and_wait():
            run()
            wait()

        result = checked(lambda: (np.asarray(left["result"][0]), np.asarray(left["result"][1].astype(numpy.float32))))
        if about:  # on a GPU, where many runs are waited for at once
            return [Contestant("JAX", JOB, "jit of value_and_grad", run, result, compiles=True, waits=wait, **about)]
        return [Contestant("JAX", JOB, "jit of value_and_grad", run_and_wait, result, self.of_xla(), compiles=True, roams=True)]

    def of_xla(self):
        return f"NPROC={self.threads}; its threads on all processors"

    def onnx_contestants(self, logits, anchors, checked):
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
        session = graph.session(self.onnxruntime, self.threads)
        outputs = session.bind({"logits": logits, "anchors": anchors.reshape(*anchors.shape[:2], 1, -1)}, {"loss": (), "gradient": logits.shape})
        return [Contestant("ONNX Runtime", JOB, "analytic graph", session.run, checked(lambda: (outputs["loss"].numpy(), outputs["gradient"].numpy())), Graph.settings)]

    # ---- the pieces

    def softmax(self, rows, experts):
        random = np.random.default_rng(7)
        logits, slopes = (aligned(random.normal(0, 2, (rows, experts)).astype(np.float32)) for _ in range(2))
        want = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
        want /= want.sum(-1, keepdims=True)
        given = aligned(want.astype(np.float32))
        want_gradient = given * (slopes - (given.astype(np.float64) * slopes).sum(-1, keepdims=True))
        ours, ours_gradient = ones(logits.shape), ones(logits.shape)
        sizes = ctypes.c_int64(rows), ctypes.c_int64(experts)
        value = lambda result: lambda: (largest_error(result(), want), None)
        gradient = lambda result: lambda: (None, largest_error(result(), want_gradient))
        contestants = [
            Contestant("sara", "softmax", "gate_softmax", functools.partial(self.c.race_softmax, pointer(logits), *sizes, pointer(ours)), value(lambda: ours)),
            Contestant("sara", "softmax backward", "gate_softmax_backward",
                       functools.partial(self.c.race_softmax_backward, pointer(given), pointer(slopes), *sizes, pointer(ours_gradient)), gradient(lambda: ours_gradient)),
        ]

        def pytorch():
            torch = self.torch
            z, p, g = (torch.from_numpy(x) for x in (logits, given, slopes))
            to, to_gradient = torch.empty_like(z), torch.empty_like(z)
            return [
                Contestant("PyTorch", "softmax", "softmax into kept memory", lambda: torch.softmax(z, -1, out=to), value(lambda: to.numpy())),
                Contestant("PyTorch", "softmax backward", "_softmax_backward_data",
                           lambda: torch._softmax_backward_data(g, p, -1, torch.float32, grad_input=to_gradient), gradient(lambda: to_gradient.numpy())),
            ]

        def onnx():
            graph = Graph(self.onnx)
            graph.output(graph.node("Softmax", [graph.input("logits", logits.shape)], axis=-1), "probs", logits.shape)
            session = graph.session(self.onnxruntime, self.threads)
            outputs = session.bind({"logits": logits}, {"probs": logits.shape})
            return [Contestant("ONNX Runtime", "softmax", "Softmax", session.run, value(lambda: outputs["probs"].numpy()), Graph.settings)]

        if self.torch:
            contestants += self.made("PyTorch", "softmax", pytorch)
        if self.jax:
            contestants += self.made("JAX", "softmax", lambda: self.jax_piece("softmax", "jit of nn.softmax", lambda x: self.jax.nn.softmax(x, -1), logits, value))
        if self.onnxruntime and self.onnx:
            contestants += self.made("ONNX Runtime", "softmax", onnx)
        self.run({"kind": "softmax", "name": f"{rows}x{experts}, from Python", "title": f"Softmax alone and its backward, fp32, {rows} x {experts}, from Python",
                  "elements": rows * experts, "unit": "Gelem/s"}, contestants)

    def jax_piece(self, job, how, function, array, check):
        jitted, on_device, left = self.jax.jit(function), self.jax.device_put(array), {}

        def run():
            left["result"] = self.jax.block_until_ready(jitted(on_device))

        return [Contestant("JAX", job, how, run, check(lambda: left["result"]), self.of_xla(), compiles=True, roams=True)]

    def top_k(self, rows, experts, k):
        scores = aligned(np.random.default_rng(8).normal(0, 2, (rows, experts)).astype(np.float32))
        want = -np.sort(-scores.astype(np.float64), -1)[:, :k]
        indices, weights = ones((rows, k), np.int32), ones((rows, k))
        # An index that is not its value's is no result.
        of = lambda values, chosen: max(largest_error(np.take_along_axis(scores, np.asarray(chosen).astype(np.int64), -1), want), largest_error(values, want))
        check = lambda result: lambda: (of(*result()), None)
        contestants = [Contestant("sara", "top-k", "top_k", functools.partial(self.c.race_top_k, pointer(scores), *map(ctypes.c_int64, (rows, experts, k)), pointer(indices), pointer(weights)),
                                  check(lambda: (weights, indices)))]

        def pytorch():
            z, left = self.torch.from_numpy(scores), {}

            def run():
                left["result"] = self.torch.topk(z, k)

            return [Contestant("PyTorch", "top-k", "topk", run, check(lambda: [x.numpy() for x in left["result"]]))]

        def onnx():
            graph = Graph(self.onnx)
            values, chosen = graph.node("TopK", [graph.input("scores", scores.shape), graph.constant([k], integer=True)], outputs=2, axis=-1)
            graph.output(values, "values", (rows, k))
            graph.output(chosen, "indices", (rows, k), integer=True)
            session = graph.session(self.onnxruntime, self.threads)
            outputs = session.bind({"scores": scores}, {"values": (rows, k), "indices": (rows, k)}, integers={"indices"})
            return [Contestant("ONNX Runtime", "top-k", "TopK", session.run, check(lambda: (outputs["values"].numpy(), outputs["indices"].numpy())), Graph.settings)]

        if self.torch:
            contestants += self.made("PyTorch", "top-k", pytorch)
        if self.jax:
            contestants += self.made("JAX", "top-k", lambda: self.jax_piece("top-k", "jit of lax.top_k", lambda x: self.jax.lax.top_k(x, k), scores, check))
        if self.onnxruntime and self.onnx:
            contestants += self.made("ONNX Runtime", "top-k", onnx)
        self.run({"kind": "top_k", "name": f"{k} of {experts}, from Python", "title": f"Top-k, {k} of {experts}, {rows} tokens, fp32, from Python", "elements": rows, "unit": "Mtoken/s"}, contestants)


class CudaRace(Race):
    """The whole job on a GPU: times are the device's, between two events of PyTorch's stream; JAX's, which has its own stream, the host's clock."""

    def start(self, shared):
        torch = self.torch
        self.ours = shared[0] if shared else None
        if not self.ours:
            self.record["not_here"].append({"name": "sara on the GPU", "install": "--shared-cuda, the target sara_race_shared_cuda"})
        if self.jax and not any(d.platform == "gpu" for d in self.jax.devices()):
            self.jax = None
            self.record["not_here"].append({"name": "JAX on the GPU", "install": "pip install 'jax[cuda13]'"})
        self.record["device"] = torch.cuda.get_device_name()
        self.halves = [torch.ones(1 << 26, device="cuda") for _ in range(2)]  # 256 MB each, more than a cache holds

    def prepare(self):
        pass

    def wait(self, contestant):
        contestant.waits() if contestant.waits else self.torch.cuda.synchronize()

    def between_events(self, run, runs):
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(runs):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / runs

    def control(self):  # a fixed copy: slow where the clocks are low, or another program has the GPU
        self.controls.append(self.between_events(lambda: self.halves[0].copy_(self.halves[1]), 8))
        return self.controls[-1]

    def timed(self, contestant, runs):
        if not contestant.waits:
            return self.between_events(contestant.run, runs)
        begin = time.perf_counter()
        for _ in range(runs):
            contestant.run()
        contestant.waits()
        return (time.perf_counter() - begin) / runs

    def take_turn(self, contestant):
        time.sleep(0.015)
        self.control()  # the first after a pause wakes the device
        before = self.control()
        runs = min(1000, math.ceil(0.01 / max(self.timed(contestant, 1), 1e-6)))
        seconds = self.timed(contestant, runs)
        contestant.times.append((seconds, max(before, self.control())))

    def loss_on_device(self, layers, sequences, length, experts, storage):
        torch, shape = self.torch, (layers, sequences, length, experts)
        torch._dynamo.reset()
        kind = torch.float32 if storage == "fp32" else torch.bfloat16
        logits, anchors = self.batch(shape)
        z, a = torch.from_numpy(logits).cuda().to(kind), torch.from_numpy(anchors).cuda()
        rounded = aligned(z.float().cpu().numpy())
        checked = self.oracle(rounded, anchors)
        limit = WRONG if storage == "fp32" else WRONG + 2.0**-8  # the gradient is rounded to bf16
        contestants = []
        if self.ours:
            contestants += self.made("sara", JOB, lambda: self.ours_on_device(z, a, checked, limit))
        leaf = lambda: [z.clone().requires_grad_(True)]
        for how, function, about in (("eager + autograd", self.definition(a), {}), ("torch.compile + autograd", self.compiled(self.definition(a)), {"compiles": True})):
            contestants.append(self.autograd(how, function, leaf(), checked, limit=limit, **about))
            contestants += self.made("PyTorch", JOB, lambda: [self.replayed(self.autograd(how, function, leaf(), checked, limit=limit))], how + ", CUDA graph")
        if self.jax:
            on_jax = self.jax.numpy.asarray(rounded, dtype=self.jax.numpy.float32 if storage == "fp32" else self.jax.numpy.bfloat16)
            contestants += self.made("JAX", JOB, lambda: self.jax_contestants(on_jax, anchors, checked, limit=limit, flags="the host's clock"))
        elements, name = math.prod(shape), "x".join(map(str, shape))
        bytes_moved = 2 * elements * z.element_size()
        half = [torch.ones(bytes_moved // 8, device="cuda") for _ in range(2)]
        copy_seconds = quantile([self.between_events(lambda: half[0].copy_(half[1]), 8) for _ in range(11)], 0.5)
        self.run({"kind": "loss", "name": f"{name}, {storage}, on the GPU", "title": f"Loss and gradient, {storage}, {name}, on {self.record['device']}, from Python",
                  "elements": elements, "unit": "Gelem/s", "bytes": bytes_moved, "copy_seconds": copy_seconds, "on_device": True,
                  "gradient_rounding": 0 if storage == "fp32" else 2.0**-9}, contestants)

    def replayed(self, contestant):
        """The same, captured in a CUDA graph once and replayed; PyTorch asks for the warm-up on another stream."""
        torch, side = self.torch, self.torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                contestant.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            contestant.run()
        contestant.how, contestant.run = contestant.how + ", CUDA graph", graph.replay
        return contestant

    def ours_on_device(self, z, a, checked, limit):
        torch = self.torch

        def make():
            loss, gradient, shape, bytes_needed = torch.ones(1, device="cuda"), torch.ones_like(z), (ctypes.c_int64 * 4)(*z.shape), ctypes.c_size_t()
            at = lambda tensor: ctypes.c_void_p(tensor.data_ptr())
            call = self.ours.race_cuda_loss
            arguments = int(z.dtype == torch.bfloat16), at(z), at(a), shape, at(loss), at(gradient)
            stream = lambda: ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            if call(stream(), *arguments, None, ctypes.byref(bytes_needed)):
                raise RuntimeError("the shared object says why")
            scratch = torch.empty(max(1, bytes_needed.value), dtype=torch.uint8, device="cuda")

            def run():
                if call(stream(), *arguments, at(scratch), ctypes.byref(bytes_needed)):
                    raise RuntimeError("the shared object says why")

            return Contestant("sara", JOB, "cuda_executor", run, checked(lambda: (loss.cpu().numpy(), gradient.float().cpu().numpy())), limit=limit)

        return [make(), self.replayed(make())]


class Graph:
    """An ONNX graph as it is written down, and a session on it whose inputs and outputs stay in place."""

    settings = "session.force_spinning_stop=1"

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

    def session(self, onnxruntime, threads):
        made = self.onnx.helper.make_graph(self.nodes, "race", self.inputs, self.outputs, self.constants)
        model = self.onnx.helper.make_model(made, opset_imports=[self.onnx.helper.make_opsetid("", 17)], ir_version=8)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # They may spin while they run, but would go on for longer than the pause between turns, and take a core from whoever is next.
        options.add_session_config_entry(*self.settings.split("="))
        return Session(onnxruntime, onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]))


class Session:
    def __init__(self, onnxruntime, session):
        self.onnxruntime, self.session = onnxruntime, session

    def bind(self, inputs, outputs, integers=()):
        self.binding = self.session.io_binding()
        value = self.onnxruntime.OrtValue.ortvalue_from_numpy
        held = {name: value(array) for name, array in inputs.items()}
        made = {name: value(ones(shape, np.int64 if name in integers else np.float32)) for name, shape in outputs.items()}
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
    sys.exit(main())
