"""An atlas of symptoms: films that are ill by one known mistake, each beside the right one from the same noise.

    python -m minivdm.course.atlas                 draws docs/symptoms anew, pictures and page
    python -m minivdm.course.atlas words-swapped   draws one picture, and the page

A mistake here is one that an exercise's check knows by name: a stage draws a film with the exercise's own solution put
in, and again with the mistake. `entries` says which; `flow_stages`, `vae_stages`, `unet_stages` and `ideal_stages`
draw; `page` puts pictures and words together.
"""
