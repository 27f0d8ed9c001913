"""Released and embedded models on disk.

- ``release_catalogue``: which released models there are, and which folders each consists of.
- ``hub``: downloading them; ``release_layout``: where they lie then, and which of a folder's files count.
- ``safetensors_files``: weights in one file or in shards, put into a network.
- ``released_networks``: one network from its released files; ``released_model_opening``: all that a model needs.
- ``network_folders``: a folder of one network, ours or released.
- ``reconstructor_and_autoencoder``: these two of a model, by its name.
- ``model_folders``: the folder of the embedded model and of trained ones; ``schedulers``: samplers by name.
"""
