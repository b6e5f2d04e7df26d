"""The loop of a story: what goes wrong in it is said."""

from __future__ import annotations

import asyncio

import pytest

from portfsm.testing.simulation import Deadlock, run, turns


def test_what_a_callback_raises_is_heard_by_nobody():
    """No task waits for a callback: asyncio would write the error into its log, and the story would go on."""

    async def story():
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await turns(3)

    with pytest.raises(ZeroDivisionError):
        run(story())


def test_a_story_in_which_nobody_moves_runs_for_ever():
    async def story():
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(story())
