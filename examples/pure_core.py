"""The machine without any I/O: decide, apply, replay. For those who bring their own store and loop."""

from portfsm import Allocate, DefinePool, Lease, Ledger, Open, PoolSpec, Release, apply, decide, replay

NOW_NS = 1_700_000_000_000_000_000


def main() -> None:
    """One port's life, then the same state from the events alone."""
    ledger, log = Ledger(), []

    def do(command: object, at_ns: int) -> None:
        for event in decide(ledger, command, now_ns=at_ns):  # type: ignore[arg-type]  # any command
            apply(ledger, event)
            log.append(event)
            print(event.seq, event.kind, event.port or "", event.owner)

    do(Open(epoch=1, holder="example", boot="boot-1", boot_ns=0, wall_ns=NOW_NS), NOW_NS)
    do(DefinePool(PoolSpec("http", ports=range(30000, 30010), hold_s=5.0)), NOW_NS)
    do(Allocate("http", owner="replica-1"), NOW_NS)
    lease: Lease = ledger.find("replica-1")[0]
    do(Release(lease), NOW_NS + 1_000_000_000)
    do(Release(lease), NOW_NS + 2_000_000_000)  # a repeat records nothing
    do(Allocate("http", owner="replica-2"), NOW_NS + 6_000_000_000)  # the hold is over: freed, then given
    assert replay(log).digest() == ledger.digest()


if __name__ == "__main__":
    main()
