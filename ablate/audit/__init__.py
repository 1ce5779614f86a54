"""What a model can see: the audit that every model passes before it trains."""
