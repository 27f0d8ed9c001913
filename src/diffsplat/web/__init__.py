"""The generation server and the splat viewer: HTTP API, web pages, job queue."""
