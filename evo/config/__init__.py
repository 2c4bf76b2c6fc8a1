"""A run's configuration: what may be set (`schema`), and YAML files of it (`loader`)."""
