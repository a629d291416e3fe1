"""Train what was prepared in a store, and stand still after an update, to be killed there:

python -m tests.support.train_and_stop STORE ADDRESS UPDATE
"""

from __future__ import annotations

import sys
import time

from deita_tasks.finetuning.trained import train_prepared


def main(store: str, address: str, last: int) -> None:
    def stop(step: int, steps: int, values: dict[str, float]) -> None:
        if step == last:
            print("standing", flush=True)
            time.sleep(600)

    train_prepared(store, address, None, stop)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
