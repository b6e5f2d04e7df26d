"""What goes with portfsm and needs none of it: parts for replicas and for the programs around a controller."""
