# The answers of R's glmnet and survival to small problems, for tests/test_glmnet.py and tests/test_glmnet_multi.py:
#   Rscript tests/data/glmnet.R tests/data/glmnet.json
# Written with R 4.2.2, glmnet 4.1-6, survival 3.5-3.

suppressPackageStartupMessages({
  library(glmnet)
  library(survival)
})
RNGversion("3.6.0")
set.seed(20)
# The thresholds, here and below, are far below the defaults: the answers are exact to about 1e-12.
# epsnr, mxitnr: Newton's steps for Cox with start times.
glmnet.control(epsnr = 1e-15, mxitnr = 1000, fdev = 0, devmax = 1)

# -- JSON: each number in the fewest digits that give it back

number <- function(x) {
  text <- sprintf("%.15g", x)
  for (digits in c("%.16g", "%.17g")) text <- ifelse(as.numeric(text) == x, text, sprintf(digits, x))
  ifelse(is.finite(x), text, ifelse(x > 0, "1e999", "-1e999"))
}

json <- function(x, indent = "") {
  deeper <- paste0(indent, " ")
  inside <- function(parts, open, close) {
    paste0(open, "\n", paste0(deeper, parts, collapse = ",\n"), "\n", indent, close)
  }
  if (is.null(x)) return("null")
  if (is.list(x)) {
    parts <- vapply(x, json, "", indent = deeper)
    return(inside(paste0("\"", names(x), "\": ", parts), "{", "}"))
  }
  if (is.array(x) && length(dim(x)) > 1) {
    return(inside(apply(x, 1, function(part) json(drop(part), deeper)), "[", "]"))
  }
  if (is.character(x)) return(paste0("\"", x, "\""))
  if (is.logical(x)) return(tolower(as.character(x)))
  text <- number(as.numeric(x))
  if (length(x) == 1 && !is.array(x)) text else paste0("[", paste(text, collapse = ", "), "]")
}

several <- function(x) if (length(x)) array(x, length(x))  # never a lone number

# -- Data

n <- 40
p <- 6
X <- round(matrix(rnorm(n * p), n) %*% diag(c(1, 0.5, 2, 1, 3, 1)), 2)
X[, 2] <- round(X[, 2] + 0.4 * X[, 1] + 1, 2)
eta <- drop(0.3 + X %*% c(0.8, -0.9, 0.2, 0, 0, 0.3))
offset <- round(rnorm(n) / 2, 2)
real <- round(eta + rnorm(n), 2)
choice <- max.col(cbind(eta, 0.7 * X[, 4], -0.5 * X[, 1]) - log(-log(matrix(runif(3 * n), n)))) - 1
time <- round(1 + 5 * rexp(n) / exp(0.9 * eta), 3)
tied <- ceiling(3 * log(time) + 1)
data <- list(
  X = X,
  real = real,
  unit = real / sqrt(mean((real - mean(real))^2)),  # glmnet divides the squared part of the penalty by this deviation
  label = as.numeric(eta + rlogis(n) > 0),
  count = as.numeric(rpois(n, exp(0.5 * eta + offset))),
  choice = choice,
  three = round(cbind(eta, eta - X[, 4], 0.5 * X[, 1]) + rnorm(3 * n), 2),
  time = time,
  tied = tied,
  start = round(time * pmax(0, runif(n, -0.7, 0.7)), 3),
  tied_start = pmax(0, tied - sample(8, n, replace = TRUE)),
  between = pmax(0, tied - sample(8, n, replace = TRUE) - 0.5),
  event = as.numeric(runif(n) < 0.8),
  weights = round(runif(n, 0.3, 2), 2),
  offset = offset,
  factors = c(1, 0.5, 2, 0, 1.5, 1),  # their sum is p, to which glmnet rescales them
  barring = c(1, 0.5, 2, 0, Inf, 1.5)  # an infinite one counts as 1 in that sum
)
stopifnot(!anyDuplicated(data$time))

# -- glmnet: a case holds its arguments, by name where they are data, and the answers

ask <- function(family, y, lams, alpha = 1, standardize = FALSE, fit_intercept = TRUE, start = NULL, weights = NULL,
                offset = NULL, factors = NULL, lower = -Inf, upper = Inf, grouped = FALSE) {
  named <- function(name) if (!is.null(name)) data[[name]]
  event <- data$event
  arguments <- list(
    X,
    switch(family,
      cox = if (is.null(start)) Surv(data[[y]], event) else Surv(data[[start]], data[[y]], event),
      multinomial = factor(data[[y]]),
      data[[y]]
    ),
    family,
    lambda = lams, alpha = alpha, standardize = standardize, weights = named(weights), offset = named(offset),
    penalty.factor = if (is.null(factors)) rep(1, p) else data[[factors]], lower.limits = lower, upper.limits = upper,
    type.multinomial = if (grouped) "grouped" else "ungrouped", thresh = 1e-26, maxit = 1e7
  )
  fit <- do.call(glmnet, c(arguments, if (family != "cox") list(intercept = fit_intercept)))
  stopifnot(fit$jerr == 0, length(fit$lambda) == length(lams))
  outputs <- is.list(fit$beta)
  coef <- if (outputs) {
    aperm(simplify2array(lapply(fit$beta, as.matrix)), c(2, 1, 3))  # lambdas, p, outputs
  } else {
    t(as.matrix(fit$beta))
  }
  list(
    family = family, y = y, alpha = alpha, standardize = standardize, fit_intercept = family != "cox" && fit_intercept,
    start = start, weights = weights, offset = offset, factors = factors, lower = lower, upper = upper,
    grouped = grouped, lams = several(lams), coef = unname(coef),
    intercept = if (outputs) unname(t(fit$a0)) else several(fit$a0), dev_ratio = several(fit$dev.ratio)
  )
}

of <- function(greatest) greatest * c(1, 0.5, 0.2, 0.05, 0.01)
cases <- list(
  "lasso" = ask("gaussian", "real", of(0.8)),
  "lasso, standardised" = ask("gaussian", "real", of(0.5), standardize = TRUE),
  "lasso, no intercept" = ask("gaussian", "real", of(0.8), fit_intercept = FALSE),
  "lasso, standardised, no intercept" =
    ask("gaussian", "real", of(0.8), standardize = TRUE, fit_intercept = FALSE),
  "lasso, weights" = ask("gaussian", "real", of(0.8), weights = "weights"),
  "lasso, standardised, weights" = ask("gaussian", "real", of(0.5), standardize = TRUE, weights = "weights"),
  "lasso, offset" = ask("gaussian", "real", of(0.8), offset = "offset"),
  "lasso, factors" = ask("gaussian", "real", of(0.8), standardize = TRUE, factors = "factors"),
  "lasso, an infinite factor" = ask("gaussian", "real", of(0.8), standardize = TRUE, factors = "barring"),
  "lasso, bounds" = ask("gaussian", "real", of(0.5), standardize = TRUE, lower = -0.3, upper = 0.25),
  "elastic net" = ask("gaussian", "unit", of(0.8), alpha = 0.5),
  "elastic net, standardised, factors" =
    ask("gaussian", "unit", of(0.8), alpha = 0.5, standardize = TRUE, factors = "factors"),
  "ridge" = ask("gaussian", "unit", of(0.8), alpha = 0, standardize = TRUE),
  "logistic" = ask("binomial", "label", of(0.2)),
  "logistic, standardised, weights" = ask("binomial", "label", of(0.1), standardize = TRUE, weights = "weights"),
  "logistic, no intercept, offset" =
    ask("binomial", "label", of(0.2), fit_intercept = FALSE, offset = "offset"),
  "logistic elastic net, factors" = ask("binomial", "label", of(0.3), alpha = 0.5, factors = "factors"),
  "logistic, nonnegative" = ask("binomial", "label", of(0.2), lower = 0),
  "poisson" = ask("poisson", "count", of(0.8)),
  "poisson, offset" = ask("poisson", "count", of(0.8), offset = "offset"),
  "poisson elastic net, standardised, weights, offset" =
    ask("poisson", "count", of(0.4), alpha = 0.5, standardize = TRUE, weights = "weights", offset = "offset"),
  "cox" = ask("cox", "time", of(0.4)),
  "cox elastic net, offset, factors" =
    ask("cox", "time", of(0.4), alpha = 0.5, offset = "offset", factors = "factors"),
  "cox, ties, weights" = ask("cox", "tied", of(0.4), weights = "weights"),
  # Not "tied_start": where a start equals a time of events and rows are censored, the gradient of glmnet 4.1-6 is not
  # that of its deviance, and the fit not the best one.
  "cox, late entries, ties" = ask("cox", "tied", of(0.4), start = "between"),
  "cox, late entries, ties, standardised, weights" =
    ask("cox", "tied", of(0.2), start = "between", standardize = TRUE, weights = "weights")
)
multi <- list(
  "multinomial" = ask("multinomial", "choice", of(0.3)),
  "multinomial, standardised, weights" =
    ask("multinomial", "choice", of(0.2), standardize = TRUE, weights = "weights"),
  "multinomial elastic net" = ask("multinomial", "choice", of(0.3), alpha = 0.5),
  "multinomial of groups" = ask("multinomial", "choice", of(0.3), grouped = TRUE),
  "multinomial of groups, standardised" = ask("multinomial", "choice", of(0.3), standardize = TRUE, grouped = TRUE),
  "several responses" = ask("mgaussian", "three", of(1), grouped = TRUE),
  "several responses, standardised, weights" =
    ask("mgaussian", "three", of(1), standardize = TRUE, weights = "weights", grouped = TRUE),
  "several responses, no intercept" = ask("mgaussian", "three", of(1), fit_intercept = FALSE, grouped = TRUE)
)

# -- survival: log partial likelihoods, their gradients and minus their second derivatives, at given coefficients;
# and the coefficients that minimise (theta/2)*sum(coef^2) less the log partial likelihood

betas <- rbind(0, c(0.5, -0.3, 0.2, 0.1, 0, -0.2), c(2, -1, 0, 0.5, 0.3, 1))

likelihood <- function(ties, y, start = NULL, weights = NULL) {
  event <- data$event
  response <- if (is.null(start)) Surv(data[[y]], event) else Surv(data[[start]], data[[y]], event)
  w <- if (is.null(weights)) rep(1, n) else data[[weights]]
  at <- lapply(seq_len(nrow(betas)), function(k) {
    control <- coxph.control(iter.max = 0)
    fit <- suppressWarnings(coxph(
      response ~ X,
      weights = w, robust = FALSE, ties = ties, init = betas[k, ], control = control
    ))
    detail <- coxph.detail(fit)
    list(value = fit$loglik[1], score = colSums(detail$score), information = solve(fit$var))
  })
  control <- coxph.control(eps = 1e-11, iter.max = 100)
  free <- coxph(response ~ X, weights = w, ties = ties, control = control)$coefficients
  # The ridge of survival 3.5-3 does not converge with all three: it says so, and its own score is not 0 there.
  awkward <- ties == "efron" && !is.null(start) && !is.null(weights)
  thetas <- if (awkward) 0 else c(0, 2, 20)
  coef <- t(vapply(thetas, function(theta) {
    if (theta == 0) return(unname(free))
    columns <- do.call(ridge, c(as.data.frame(X), list(theta = theta, scale = FALSE)))
    unname(coxph(response ~ columns, weights = w, ties = ties, control = control)$coefficients)
  }, numeric(p)))
  list(
    ties = ties, y = y, start = start, weights = weights, value = several(vapply(at, `[[`, 0, "value")),
    score = t(vapply(at, `[[`, numeric(p), "score")),
    information = aperm(simplify2array(lapply(at, `[[`, "information")), c(3, 1, 2)),
    thetas = several(thetas), coef = coef
  )
}

likelihoods <- list(
  "breslow" = likelihood("breslow", "time"),
  "breslow, ties, weights" = likelihood("breslow", "tied", weights = "weights"),
  "breslow, late entries" = likelihood("breslow", "time", "start"),
  "breslow, late entries, ties, weights" = likelihood("breslow", "tied", "tied_start", "weights"),
  "efron, no ties" = likelihood("efron", "time"),
  "efron" = likelihood("efron", "tied"),
  "efron, weights" = likelihood("efron", "tied", weights = "weights"),
  "efron, late entries" = likelihood("efron", "tied", "tied_start"),
  "efron, late entries, weights" = likelihood("efron", "tied", "tied_start", "weights")
)

file <- commandArgs(trailingOnly = TRUE)[1]
writeLines(json(list(data = c(data, list(betas = betas)), glmnet = cases, multi = multi, survival = likelihoods)), file)
