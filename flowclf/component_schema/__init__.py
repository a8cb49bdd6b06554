"""The arguments that a recipe may give to a component, read from the component's signature.

Strict pydantic models with located errors (``sections``) are made from signatures (``signature``); components are written as specs
(``specs``), checked and built (``components``). Nothing here imports torch; components may.
"""
