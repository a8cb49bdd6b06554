"""What a recipe may give to a component, read from the component's own signature.

- :mod:`~flowclf.component_schema.sections`: strict pydantic models, and errors that know their place.
- :mod:`~flowclf.component_schema.signature`: from a signature to such a model.
- :mod:`~flowclf.component_schema.specs`: the form of specs, and of lists of node specs.
- :mod:`~flowclf.component_schema.components`: registered components named in plain data, checked and built.

Nothing here imports torch, unless a component does that is used.
"""
