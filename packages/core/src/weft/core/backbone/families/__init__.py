"""One small declarative file per model family; `weft.core.backbone.family` finds them by themselves."""
