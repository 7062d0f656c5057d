"""Reference compressors that consume predictors."""

if __name__ == "compressors":  # found because the checkout itself is on Python's path
    raise ImportError(
        "this folder is imported as joulemap.compressors: run Python with -P, or from another folder"
    )
