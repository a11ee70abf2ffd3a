"""`python -m benchmarks` is `python -m benchmarks.run`."""

from benchmarks.run import main
from pipelines.lake.process import run_process

if __name__ == "__main__":
    run_process(main)
