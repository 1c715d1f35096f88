"""Protocol sources, written from field numbers, and `generate`, which makes `parma_api.gen` of them."""
