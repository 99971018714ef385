"""flops.count against TensorFlow's profiler: the totals, and how many times faster. Ratios of one run.

    python benchmarks/flops.py

Each way is warmed up once per model; the median of several rounds is compared.
"""

import statistics
import time

from riceutils import flops, models


def median_seconds(function, model, rounds):
    function(model)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function(model)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    for name in models.names():
        model = models.build(name)
        counted, profiled = flops.count(model).total, flops.profile(model)
        assert abs(counted - profiled) <= 1e-4 * profiled, name  # networks of Keras have operations of their own
        ratio = median_seconds(flops.profile, model, 3) / median_seconds(flops.count, model, 9)
        print(f"{name:22} {counted - profiled:+d} of {profiled:,}, formula {ratio:6.0f} times faster")


if __name__ == "__main__":
    main()
