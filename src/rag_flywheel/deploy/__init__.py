"""The deploy room: index versions on disk, and which of them is live."""
