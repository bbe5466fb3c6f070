"""How a model is judged: metrics, tables, statistics, figures and the report of ``twin-scanner evaluate``."""
