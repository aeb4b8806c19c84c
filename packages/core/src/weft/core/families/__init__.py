"""One small declarative file per model family; `weft.core.family` finds them by themselves."""
