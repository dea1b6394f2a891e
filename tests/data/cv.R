# Cross-validation by R's glmnet of the examples that come with it, for tests/test_cross_validation.py:
#   Rscript tests/data/cv.R tests/data/cv.json.gz
# Written with R 4.2.2, glmnet 4.1-6.

suppressPackageStartupMessages(library(glmnet))

number <- function(x) { # in the fewest digits that give it back
  text <- sprintf("%.15g", x)
  for (digits in c("%.16g", "%.17g")) text <- ifelse(as.numeric(text) == x, text, sprintf(digits, x))
  text
}
array_of <- function(x) paste0("[", paste(number(as.numeric(x)), collapse = ","), "]")
object <- function(parts) paste0("{", paste0("\"", names(parts), "\":", parts, collapse = ",\n"), "}")

examples <- c(gaussian = "QuickStartExample", binomial = "BinomialExample", poisson = "PoissonExample")
measures <- list(gaussian = c("mse", "mae"), binomial = c("deviance", "class", "auc"), poisson = c("deviance", "mae"))

of_family <- function(family) {
  here <- new.env()
  data(list = examples[[family]], package = "glmnet", envir = here)
  x <- here[[examples[[family]]]]$x
  y <- here[[examples[[family]]]]$y
  ids <- rep(1:10, length.out = nrow(x))
  lambda <- glmnet(x, y, family = family)$lambda
  answer <- function(measure, ...) {
    fit <- cv.glmnet(
      x, y, family = family, foldid = ids, lambda = lambda, type.measure = measure, thresh = 1e-14, maxit = 1e7, ...
    )
    chosen <- match(c(fit$lambda.min, fit$lambda.1se), fit$lambda)
    object(c(mean = array_of(fit$cvm), se = array_of(fit$cvsd), chosen = array_of(chosen - 1)))
  }
  answers <- vapply(measures[[family]], answer, "")
  relaxed <- if (family == "gaussian") {
    fit <- cv.glmnet(
      x, y, foldid = ids, lambda = lambda, thresh = 1e-14, maxit = 1e7, relax = TRUE, gamma = c(0, 0.5, 1)
    )
    lengths <- vapply(fit$relaxed$statlist, function(at) length(at$cvm), 0L)
    stopifnot(all(lengths == length(lambda)))
    object(c(relaxed = paste0("[", paste(vapply(fit$relaxed$statlist, function(at) array_of(at$cvm), ""),
      collapse = ","), "]")))
  }
  object(c(
    X = array_of(t(x)), shape = array_of(dim(x)), y = array_of(y), lams = array_of(lambda),
    measures = object(answers), more = if (is.null(relaxed)) "{}" else relaxed
  ))
}

out <- gzfile(commandArgs(trailingOnly = TRUE)[1], "w", compression = 9)
writeLines(object(vapply(names(examples), of_family, "")), out)
close(out)
