# One text for test and production: variables from outside, locals computed from them.
#
#   skerry job validate -var stage=production jobspecs/sensor.nomad.hcl
variable "stage" {
  type        = string
  default     = "test"
  description = "Which fleet: test or production."

  validation {
    condition     = contains(["test", "production"], var.stage)
    error_message = "stage is test or production"
  }
}

variable "version" {
  type    = string
  default = "1.8.2"
}

variable "channels" {
  type = list(object({
    name = string
    hz   = number
  }))
  default = [
    { name = "temperature", hz = 1 },
    { name = "vibration", hz = 400 },
  ]
}

locals {
  names = [for c in var.channels : c.name]
  fast  = [for c in var.channels : c.name if c.hz > 100]
  pool  = var.stage == "production" ? "line" : "bench"
  image = format("sensor:%s", var.version)
}

job "sensor" {
  type      = "system"
  node_pool = local.pool

  meta = {
    stage    = var.stage
    channels = join(",", local.names)
  }

  group "sensor" {
    task "sensor" {
      driver = "docker"

      config {
        image = local.image
        args = concat(
          ["--node", node.unique.name],
          flatten([for name in local.fast : ["--fast", name]]),
        )
      }

      env = {
        "CHANNELS" = jsonencode(var.channels)
        "MEMORY"   = "${max(32, 16 * length(var.channels))} MiB"
      }

      resources {
        memory     = max(32, 16 * length(var.channels))
        memory_max = var.stage == "production" ? 96 : 192
      }
    }
  }
}
