"""Text encoders: prompts to conditioning tensors."""
