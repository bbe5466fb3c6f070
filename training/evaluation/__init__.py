"""How a model is evaluated: metrics, tables, statistics, figures and the report of ``twin-scanner evaluate``."""
