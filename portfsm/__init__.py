"""Ports for replicas behind a proxy: handed out, held back, blocked, and remembered across crashes.

The layers, each importing only from those below it:

    surfaces   cli, demo, testing
    async      manager (open_manager, PortManager)
    I/O        journals (memory, file), clocks
    bytes      line format, recovery rules
    machine    TRANSITIONS, decide, apply, Ledger, replay
    words      states, events, commands, specs, values, errors, protocols
"""
