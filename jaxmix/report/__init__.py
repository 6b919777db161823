"""How numbers are shown: tables, plots and files. Takes plain numbers, knows no estimator."""
