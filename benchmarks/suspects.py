"""Suspects in company, simulated: jobs that were running when their worker died, on the workers that are left.

Every event is exact; nothing but suspects runs. A poison job kills its worker so many seconds after it began. What ran
there comes back RESCUE seconds later with one attempt less, and another worker takes the dead one's place at once.
"""
from __future__ import annotations
import heapq, itertools, random, statistics, sys
from dataclasses import dataclass, field

RESCUE = 15.0

@dataclass
class Job:
    n: int
    seconds: float
    most: int
    poison: float | None = None
    attempt: int = 1
    crashes: int = 1
    state: str = "ready"
    @property
    def left(self): return self.most - self.attempt

@dataclass
class Policy:
    name: str
    first: int            # how many may run untried at first
    growth: str           # "none", "double": twice as many each time, "more": one more each time
    proof: float = 10.0   # so long without harm is as good as an end
    second: bool = False  # company also after a second death
    order: str = "together"  # who goes first: those in company, or "line"
    cap: int = 1000
    total: bool = False   # the bound is on all that run, not on the untried
    def together(self, job): return job.left >= 2 and (job.crashes == 1 or self.second)

@dataclass
class Worker:
    slots: int
    may: int
    running: dict = field(default_factory=dict)   # job n -> tried?
    alone: bool = False
    alive: bool = True

def run(policy, jobs, workers, slots=100):
    now, tick, events = 0.0, itertools.count(), []
    ready = list(jobs)
    ws = [Worker(slots, policy.first) for _ in range(workers)]
    at = lambda t, *what: heapq.heappush(events, (t, next(tick), what))
    burnt = 0; deaths = 0
    def untried(w): return len(w.running) if policy.total else sum(not x for x in w.running.values())
    def begin(w, job):
        ready.remove(job); job.attempt += 1; w.running[job.n] = False
        token = job.attempt
        if job.poison is not None and job.poison < job.seconds: at(now + job.poison, "kill", w, job, token)
        else: at(now + job.seconds, "end", w, job, token)
        if policy.growth != "none" : at(now + policy.proof, "proof", w, job, token)
    def fill():
        for w in random.sample(ws, len(ws)):
            while not w.alone and len(w.running) < w.slots:
                company = [j for j in ready if policy.together(j)]
                pick = None
                if policy.order == "line" and ready and not policy.together(ready[0]):
                    if not w.running: pick, lone = ready[0], True
                    else: break
                elif company and untried(w) < w.may and len(w.running) < policy.cap: pick, lone = company[0], False
                elif not company and ready and not w.running: pick, lone = ready[0], True
                if pick is None: break
                if lone: w.alone = True
                elif not w.running and False: pass
                begin(w, pick)
    def harmless(w):
        if w.alone: return
        w.may = min(1000, w.may * 2 if policy.growth == "double" else w.may + 1 if policy.growth == "more" else w.may)
    global by
    fill(); last = 0.0
    while events:
        now, _, (what, w, job, token) = heapq.heappop(events)
        if what == "back":
            ready.extend(w); ready.sort(key=lambda j: j.n); fill(); continue
        if not w.alive or job.attempt != token or job.n not in w.running: continue
        if what == "proof":
            if not w.running[job.n]: w.running[job.n] = True; harmless(w)
        elif what == "end":
            tried = w.running.pop(job.n); job.state = "done"; last = now
            if not tried: harmless(w)
            if not w.running: w.alone = False
        else:
            w.alive = False; deaths += 1
            ws[ws.index(w)] = Worker(w.slots, policy.first)
            back = []
            for n in w.running:
                j = by[n]; j.crashes += 1
                if j.poison is None: burnt += 1
                if j.attempt >= j.most: j.state = "failed"; last = now
                else: back.append(j)
            at(now + RESCUE, "back", back, None, None)
        fill()
    return last, burnt, sum(j.state == "failed" and j.poison is None for j in by.values()), deaths, sum(j.state!="done" and j.state!="failed" for j in by.values())

POLICIES = [
    Policy("one at a time (as it was)", 1, "none"),
    Policy("1, doubled at each", 1, "double", total=True),
    Policy("2, one more at each", 2, "more"),
    Policy("2, more, at most 64", 2, "more", cap=64),
    Policy("2, more, at most 32", 2, "more", cap=32),
    Policy("2, more, at most 16", 2, "more", cap=16),
    Policy("2, more, at most 8", 2, "more", cap=8),
    Policy("4, more, at most 16", 4, "more", cap=16),
]
CASES = [  # name, n, seconds, most, poison after, workers
    ("30 of 5 s", 30, 5, 3, None, 1),
    ("100 of 0.2 s", 100, .2, 3, None, 1),
    ("100 of 60 s", 100, 60, 3, None, 1),
    ("300 of 10 s, two", 300, 10, 3, None, 2),
    ("100 of 5 s, poison", 100, 5, 3, 0.0, 1),
    ("100 of 5 s, poison after 3", 100, 5, 3, 3.0, 1),
    ("100 of 60 s, poison", 100, 60, 3, 0.0, 1),
    ("100 of 60 s, poison at 30", 100, 60, 3, 30.0, 1),
    ("100 of 5 s, poison, 2 attempts", 100, 5, 2, 0.0, 1),
    ("100 of 5 s, poison, 10 attempts", 100, 5, 10, 0.0, 1),
    ("100 of 60 s, poison at 30, 10 attempts", 100, 60, 10, 30.0, 1),
    ("100 of 3600 s", 100, 3600, 3, None, 1),
    ("100 of 3600 s, poison", 100, 3600, 3, 0.0, 1),
    ("100 of 5 s, half with 2 attempts", 100, 5, (2, 3), None, 1),
]
if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    for name, n, seconds, most, poison, workers in CASES:
        print(f"\n{name}")
        for policy in POLICIES:
            got = []
            for seed in range(seeds if poison is not None or isinstance(most, tuple) else 1):
                random.seed(seed)
                bad = random.randrange(n) if poison is not None else None
                by = {i: Job(i, seconds + (.01 if i == bad else 0), most[i % 2] if isinstance(most, tuple) else most, poison if i == bad else None) for i in range(n)}
                got.append(run(policy, list(by.values()), workers))
            t = sorted(g[0] for g in got)
            print(f"  {policy.name:32s} {statistics.median(t):7.0f} s  worst {t[-1]:7.0f}  burnt {statistics.mean(g[1] for g in got):6.1f} max {max(g[1] for g in got):4d}  failed {sum(g[2] for g in got)}  deaths {statistics.mean(g[3] for g in got):.1f} stuck {sum(g[4] for g in got)}")
