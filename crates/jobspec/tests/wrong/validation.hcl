variable "stage" {
  type = string
  default = "tst"
  validation {
    condition = contains(["test", "production"], var.stage)
    error_message = "stage is test or production"
  }
}
job "web" {
  type = "system"
  group "web" {
    task "server" {
      driver = "docker"
      config {
        image = "web:1"
      }
    }
  }
}
