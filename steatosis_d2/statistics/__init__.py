"""What studies ask of a table of cases: agreement with a reference, grades, intervals."""
