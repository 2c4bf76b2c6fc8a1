"""Where models run: founders, hosts, scorers, and pools of them. The only place that knows Ray."""
