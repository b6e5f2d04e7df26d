from hypothesis import settings

# `pytest --hypothesis-profile thorough` looks fifty times longer.
settings.register_profile("portfsm", max_examples=150, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile("portfsm")
