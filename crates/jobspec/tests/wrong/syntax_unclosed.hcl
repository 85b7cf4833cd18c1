job "web" {
  type = "system"
