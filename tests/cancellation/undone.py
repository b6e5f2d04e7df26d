"""What a cancelled call leaves in the log."""


def batches(journal, owner):
    """For each append that has to do with `owner`: what it recorded."""
    ports = {event.port for events in journal.appends for event in events if event.owner == owner}
    found = [[f"{event.kind}:{event.cause}" for event in events if event.port in ports and event.port] for events in journal.appends]
    return [batch for batch in found if batch]


UNDONE = ["released:cancelled", "freed:elapsed"]


async def undone(manager, journal, owner):
    """The call was cancelled: nothing of it is left, and what was recorded was undone in one batch."""
    await manager.release_owner("nobody")  # waits for all that was decided
    assert manager.find(owner) == ()
    assert manager.statistics().free == manager.statistics().size
    found = batches(journal, owner)
    flat = [kind for batch in found for kind in batch]
    assert flat in ([], ["allocated:", *UNDONE])
    if flat:
        assert found[-1][-2:] == UNDONE
