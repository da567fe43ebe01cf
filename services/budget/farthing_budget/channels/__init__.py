"""How alerts travel: by signed webhook, in Slack's format, by e-mail. Each module sends one way and raises DeliveryFailed."""
