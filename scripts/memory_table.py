"""Memory of the released models' weights on paper, as a Markdown table: parameters times bytes."""

from diffsplat.pretrained.release_catalogue import BACKBONES, Component, every_component

BYTES = {"float32": 4, "bf16": 2}


def main() -> None:
    """Print the table."""
    print("| GB of weights, float32 / bf16 | text encoders | from text | from an image | each ControlNet |")
    print("|---|---|---|---|---|")
    for name, backbone in BACKBONES.items():
        parts = {part.label: part for part in every_component(name)}
        encoders = [part for label, part in parts.items() if label.startswith("text encoder")]
        text = [parts["text model"], parts["splat autoencoder"]]
        image = [
            parts["image model"],
            parts["splat autoencoder"],
            parts["vae"],
            *every_component("elevation"),
        ]
        controls = [parts["depth control"]] if backbone.control_releases else []
        print(f"| `{name}` | {' | '.join(map(_size, (encoders, text, image, controls)))} |")


def _size(parts: list[Component]) -> str:
    billions = sum(part.parameters for part in parts) / 1e9
    return " / ".join(f"{billions * size:.1f}" for size in BYTES.values()) if parts else "none released"


if __name__ == "__main__":
    main()
