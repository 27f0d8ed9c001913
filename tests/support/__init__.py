"""Helpers of several tests: fake servers, figures, files built by hand, folders of released models."""
