"""A campaign: cells of a study carried to a machine without this project, measured there, and brought back.

``pack`` makes one archive here; ``run`` measures there with the standard library and the engine alone; ``bring_home``
takes the results in, checked (docs/campaign.md).
"""
