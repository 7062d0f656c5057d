"""Parts for joulemap, as another package brings them."""
