"""How the networks and the tables of `klt` are learnt and judged: corpora, features, fitting, metrics."""
